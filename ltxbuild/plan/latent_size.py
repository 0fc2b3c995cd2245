"""Sizes of latents, as they follow from a variant."""

from __future__ import annotations

from ltxbuild.components import ModelConfig
from ltxbuild.errors import RecipeError
from ltxbuild.model.geometry import FRAME_STRIDE, MEL_STRIDE, PIXEL_STRIDE, Geometry
from ltxbuild.recipe import VariantSection
from ltxbuild.upsampling import Upsampling


def latent_size(variant: VariantSection, config: ModelConfig) -> Geometry:
    """Latent size of a variant.

    Audio latents are `round(seconds * latents per second)`, Python's rounding (half to even).

    Raises:
        RecipeError: It is too short for an audio latent.
    """
    audio = config.ltx.audio_vae
    per_second = audio.sampling_rate / audio.hop_length / MEL_STRIDE
    latents = round(variant.frames / variant.fps * per_second)
    if latents < 1:
        raise RecipeError(
            f"frames: {variant.frames} at fps: {variant.fps:g} last {variant.frames / variant.fps:.3f} s, "
            f"shorter than half an audio latent ({0.5 / per_second:.3f} s)",
            hint="give the variant more frames, or fewer per second",
        )
    return Geometry(
        (variant.frames - 1) // FRAME_STRIDE + 1,
        variant.height // PIXEL_STRIDE,
        variant.width // PIXEL_STRIDE,
        latents,
        variant.fps,
    )


def first_stage(variant: VariantSection, config: ModelConfig, scale: Upsampling) -> Geometry:
    """Latent size of the stage before the upsampler.

    Both stages have the same sound, though the last frame of fewer frames lasts longer.
    """
    return latent_size(variant, config)._replace(
        frames=(scale.first_frames(variant.frames) - 1) // FRAME_STRIDE + 1,
        height=scale.first_side(variant.height) // PIXEL_STRIDE,
        width=scale.first_side(variant.width) // PIXEL_STRIDE,
        fps=variant.fps / scale.time,
    )
