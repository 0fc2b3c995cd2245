"""Frames and waveform to an MP4 file: H.264 with BT.709 limited-range tags, AAC stereo.

The file is written beside its target under a temporary name and renamed when it is complete, so nothing half
written ever has the target's name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".mp4",)
CRF, PRESET = "19", "veryfast"
BT709 = 1
"""Number of BT.709 among colour primaries, transfer characteristics and matrices (ITU-T H.273)."""
LIMITED = 1
"""FFmpeg's number of the limited colour range."""

_MATRIX = np.array(
    [[0.2126, 0.7152, 0.0722], [-0.1146, -0.3854, 0.5], [0.5, -0.4542, -0.0458]], np.float32
) * np.array([[219], [224], [224]], np.float32)
_BAND = 16
"""Rows converted at a time: their values stay in the processor's cache."""


def i420(frame: NDArray[np.float32]) -> NDArray[np.uint8]:
    """One frame f32 `[H, W, 3]` in [0, 1] as I420 `[3H/2, W]`; values are cut, not rounded.

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


def pcm16(waveform: NDArray[Any]) -> NDArray[np.int16]:
    """Waveform `[2, N]` in [-1, 1] as 16-bit samples; values are cut, not rounded."""
    return (np.clip(waveform.astype(np.float32), -1, 1) * 32767).astype(np.int16)


class VideoWriter:
    """Writes one file: `frame` for each frame inside a `with` block, the sound along with them."""

    def __init__(
        self, path: Path, width: int, height: int, fps: float, waveform: NDArray[Any], sample_rate: int
    ) -> None:
        """Open the file.

        Args:
            path: Where the finished file goes.
            width: Even number of pixels.
            height: Even number of pixels.
            fps: Frames per second, taken as the exact decimal number.
            waveform: `[2, N]` in [-1, 1].
            sample_rate: Samples per second.
        """
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._fps = Fraction(repr(fps))
        self._samples = pcm16(waveform)
        self._sample_rate = sample_rate
        self._frames, self._heard = 0, 0
        self._container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"})
        self._video = self._add_video(width, height)
        self._audio = self._container.add_stream("aac", rate=sample_rate, layout="stereo")

    def _add_video(self, width: int, height: int) -> Any:
        stream = self._container.add_stream("libx264", rate=self._fps, options={"crf": CRF, "preset": PRESET})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.color_range, context.colorspace = LIMITED, BT709
        context.color_primaries, context.color_trc = BT709, BT709
        return stream

    def frame(self, frame: NDArray[np.float32]) -> None:
        """Append a frame f32 `[H, W, 3]` in [0, 1], and the sound up to its end."""
        picture = av.VideoFrame.from_ndarray(i420(frame), format="yuv420p")
        picture.pts, picture.time_base = self._frames, 1 / self._fps
        self._container.mux(self._video.encode(picture))
        self._frames += 1
        self._sound(int(self._frames / self._fps * self._sample_rate))

    def _sound(self, until: int) -> None:
        for start, stop in _spans(self._heard, min(until, self._samples.shape[1])):
            part = np.ascontiguousarray(self._samples[:, start:stop])
            sound = av.AudioFrame.from_ndarray(part, format="s16p", layout="stereo")
            sound.sample_rate, sound.pts = self._sample_rate, start
            sound.time_base = Fraction(1, self._sample_rate)
            self._container.mux(self._audio.encode(sound))
            self._heard = stop

    def _finish(self) -> None:
        self._sound(self._samples.shape[1])
        self._container.mux(self._video.encode(None))
        self._container.mux(self._audio.encode(None))
        self._container.close()
        with self._temporary.open("rb") as file:
            os.fsync(file.fileno())
        self._temporary.replace(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            # What is discarded needs no trailer, and a full disk can't take one.
            with suppress(OSError):
                self._container.close()
            self._temporary.unlink(missing_ok=True)


def _spans(start: int, stop: int, size: int = 1 << 16) -> Iterator[tuple[int, int]]:
    """Consecutive spans of at most `size`."""
    for first in range(start, stop, size):
        yield first, min(first + size, stop)
