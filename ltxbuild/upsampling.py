"""How the second denoising stage is larger than the first, for each kind of latent upsampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from ltxbuild.model.config import UpsamplerKind
from ltxbuild.model.geometry import FRAME_STRIDE, PIXEL_STRIDE


@dataclass(frozen=True, slots=True)
class Upsampling:
    """What an upsampler scales.

    Attributes:
        space: Factor of height and width.
        time: Factor of the frames and of the frame rate.
    """

    space: Fraction = Fraction(1)
    time: int = 1

    @property
    def side_multiple(self) -> int:
        """Height and width are multiples of this many pixels, so that both stages have whole cells."""
        return PIXEL_STRIDE * self.space.numerator

    @property
    def frame_multiple(self) -> int:
        """Frames are a multiple of this, plus one."""
        return FRAME_STRIDE * self.time

    def first_side(self, side: int) -> int:
        """Height or width of the first stage."""
        return int(side / self.space)

    def first_frames(self, frames: int) -> int:
        """Frames of the first stage."""
        return (frames - 1) // self.time + 1


UPSAMPLINGS: Mapping[UpsamplerKind, Upsampling] = MappingProxyType(
    {
        "spatial_x2": Upsampling(space=Fraction(2)),
        "spatial_x1.5": Upsampling(space=Fraction(3, 2)),
        "temporal_x2": Upsampling(time=2),
    }
)
