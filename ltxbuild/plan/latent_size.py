"""Sizes of latents, as they follow from a variant."""

from __future__ import annotations

from ltxbuild.components import ModelConfig
from ltxbuild.model.geometry import FRAME_STRIDE, MEL_STRIDE, PIXEL_STRIDE, Geometry
from ltxbuild.recipe import VariantSection
from ltxbuild.upsampling import Upsampling


def latent_size(variant: VariantSection, config: ModelConfig) -> Geometry:
    """Latent size of a variant.

    Audio latents are `round(seconds * latents per second)`, Python's rounding (half to even).
    """
    audio = config.ltx.audio_vae
    per_second = audio.sampling_rate / audio.hop_length / MEL_STRIDE
    return Geometry(
        (variant.frames - 1) // FRAME_STRIDE + 1,
        variant.height // PIXEL_STRIDE,
        variant.width // PIXEL_STRIDE,
        round(variant.frames / variant.fps * per_second),
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
