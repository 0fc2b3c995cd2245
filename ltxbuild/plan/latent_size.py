"""Sizes of latents, as they follow from a variant."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ltxbuild.components import ModelConfig
from ltxbuild.recipe import VariantSection
from ltxbuild.upsampling import FRAME_STRIDE, PIXEL_STRIDE, Upsampling

AUDIO_STRIDE = 4
"""Mel frames per audio latent."""


@dataclass(frozen=True, slots=True)
class LatentSize:
    """Size of the latents at one stage.

    Attributes:
        frames: Latent frames.
        height: Latent rows.
        width: Latent columns.
        audio: Audio latents.
    """

    frames: int
    height: int
    width: int
    audio: int

    @property
    def tokens(self) -> int:
        """Video tokens."""
        return self.frames * self.cells

    @property
    def cells(self) -> int:
        """Video tokens of a latent frame."""
        return self.height * self.width


def latent_size(variant: VariantSection, config: ModelConfig) -> LatentSize:
    """Latent size of a variant.

    Audio latents are `round(seconds * latents per second)`, Python's rounding (half to even).
    """
    audio = config.ltx.audio_vae
    per_second = audio.sampling_rate / audio.hop_length / AUDIO_STRIDE
    return LatentSize(
        (variant.frames - 1) // FRAME_STRIDE + 1,
        variant.height // PIXEL_STRIDE,
        variant.width // PIXEL_STRIDE,
        round(variant.frames / variant.fps * per_second),
    )


def first_stage(variant: VariantSection, config: ModelConfig, scale: Upsampling) -> tuple[LatentSize, float]:
    """Latent size and frames per second of the stage before the upsampler.

    Both stages have the same sound, though the last frame of fewer frames lasts longer.
    """
    full = latent_size(variant, config)
    smaller = replace(
        full,
        frames=(scale.first_frames(variant.frames) - 1) // FRAME_STRIDE + 1,
        height=scale.first_side(variant.height) // PIXEL_STRIDE,
        width=scale.first_side(variant.width) // PIXEL_STRIDE,
    )
    return smaller, variant.fps / scale.time
