"""Values as encoders take them: bytes for pictures, 16 bits for sound. They are cut, not rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.float32]
Picture = NDArray[np.uint8]

_MATRIX = np.array(
    [[0.2126, 0.7152, 0.0722], [-0.1146, -0.3854, 0.5], [0.5, -0.4542, -0.0458]], np.float32
) * np.array([[219], [224], [224]], np.float32)
_BAND = 16
"""Rows converted at a time: their values stay in the processor's cache."""


def i420(frame: Frame) -> Picture:
    """One frame f32 `[H, W, 3]` in [0, 1] as I420 `[3H/2, W]`, BT.709 in limited range.

    H and W are even. Chroma is the mean of two by two pixels.
    """
    height, width, _ = frame.shape
    picture = np.empty((height * 3 // 2, width), np.uint8)
    luma, chroma = picture[:height], picture[height:].reshape(2, height // 2, width // 2)
    for top in range(0, height, _BAND):
        planes = _MATRIX @ frame[top : top + _BAND].reshape(-1, 3).T
        luma[top : top + _BAND] = _clipped(planes[0].reshape(-1, width), 16)
        pairs = planes[1:].reshape(2, -1, 2, width)
        columns = pairs[:, :, 0] + pairs[:, :, 1]
        quads: NDArray[np.float32] = columns[..., 0::2] + columns[..., 1::2]
        chroma[:, top // 2 : (top + _BAND) // 2] = _clipped(quads / np.float32(4), 128)
    return picture


def _clipped(values: NDArray[np.float32], offset: int) -> NDArray[np.float32]:
    clipped: NDArray[np.float32] = np.clip(values + np.float32(offset), 0, 255)
    return clipped


def rgb24(frames: NDArray[np.float32]) -> Picture:
    """Frames f32 `[..., 3]` in [0, 1] as bytes of the same shape."""
    return (np.clip(frames, 0, 1) * np.float32(255)).astype(np.uint8)


def pcm16(waveform: NDArray[Any]) -> NDArray[np.int16]:
    """Waveform `[2, N]` in [-1, 1] as 16-bit samples."""
    return (np.clip(waveform.astype(np.float32), -1, 1) * 32767).astype(np.int16)
