"""Configuration of a latent upsampler."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ltxbuild.model.config.section import Section

UpsamplerKind = Literal["spatial_x2", "spatial_x1.5", "temporal_x2"]
"""Kinds of latent upsamplers, by what they scale."""


class UpsamplerConfig(Section):
    """The flat config of a latent upsampler file."""

    in_channels: int = 128
    mid_channels: Annotated[int, Field(multiple_of=32)] = 512
    num_blocks_per_stage: int = 4
    spatial_scale: float = 2.0
    dims: Literal[3] = 3
    spatial_upsample: bool = True
    temporal_upsample: bool = False
    rational_resampler: bool = False

    @model_validator(mode="after")
    def _is_of_a_kind(self) -> UpsamplerConfig:
        scales = (2.0, 1.5) if self.rational_resampler else (2.0,)
        if self.spatial_upsample == self.temporal_upsample or (
            self.spatial_upsample and self.spatial_scale not in scales
        ):
            raise ValueError(
                f"spatial_upsample {self.spatial_upsample}, temporal_upsample {self.temporal_upsample}, "
                f"spatial_scale {self.spatial_scale} and rational_resampler {self.rational_resampler} are "
                "none of the supported kinds: x2 in space, x1.5 in space (rational), x2 in time"
            )
        return self

    @property
    def kind(self) -> UpsamplerKind:
        """What it scales, and how much."""
        if self.temporal_upsample:
            return "temporal_x2"
        return "spatial_x2" if self.spatial_scale == 2 else "spatial_x1.5"
