"""Size of the latents of a run, and what their cells cover. No jax: plans count with it."""

from __future__ import annotations

from typing import NamedTuple

FRAME_STRIDE, PIXEL_STRIDE = 8, 32
"""Frames, and pixels of a side, of a latent cell; the first latent frame holds a single one."""
MEL_STRIDE = 4
"""Mel frames of an audio latent; the first one holds a single one."""


class Geometry(NamedTuple):
    """Size of the latents of one run.

    Attributes:
        frames: Latent frames.
        height: Latent rows.
        width: Latent columns.
        audio: Audio latents.
        fps: Frames per second of the decoded video.
    """

    frames: int
    height: int
    width: int
    audio: int
    fps: float

    @property
    def tokens(self) -> int:
        """Video tokens."""
        return self.frames * self.cells

    @property
    def cells(self) -> int:
        """Video tokens of one latent frame."""
        return self.height * self.width

    @property
    def pixel_frames(self) -> int:
        """Frames of the decoded video."""
        return (self.frames - 1) * FRAME_STRIDE + 1
