"""Containers of pictures and sound: MP4, WebM, WAV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from ltx_run.encoders import Clip, Sound
from ltx_run.pictures import Frame, Picture, i420, pcm16

BT709 = 1
"""Number of BT.709 among colour primaries, transfer characteristics and matrices (ITU-T H.273)."""
LIMITED = 1
"""FFmpeg's number of the limited colour range."""


class Codec(NamedTuple):
    """An encoder of FFmpeg and its options."""

    name: str
    options: Mapping[str, str]


@dataclass(frozen=True)
class Container:
    """A container format and what it holds.

    Attributes:
        format: FFmpeg's name.
        video: None for sound alone.
        audio: For the sound.
        rate: Samples per second that the sound is brought to; None for those that it has.
        options: Of the format.
    """

    format: str
    video: Codec | None
    audio: Codec
    rate: int | None
    options: Mapping[str, str]


X264 = Codec("libx264", {"crf": "19", "preset": "veryfast"})
VP9 = Codec(
    "libvpx-vp9",
    {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "5", "row-mt": "1", "tile-columns": "2"},
)
MP4 = Container("mp4", X264, Codec("aac", {}), None, {"movflags": "+faststart"})
WEBM = Container("webm", VP9, Codec("libopus", {"b": "160k"}), 48000, {})
WAV = Container("wav", None, Codec("pcm_s16le", {}), None, {})


class Movie:
    """Pictures, and sound along with them."""

    def __init__(self, container: Container, path: Path, clip: Clip) -> None:
        """Open the file."""
        self._container, self._clip = container, clip
        self._frames, self._heard = 0, 0
        self._file = av.open(str(path), "w", format=container.format, options=dict(container.options))
        self._file.metadata.update(clip.tags)
        self._video: Any = self._add_video(container.video) if container.video else None
        self._audio: Any = self._add_audio(clip.sound) if clip.sound else None

    def _add_video(self, codec: Codec) -> Any:
        clip = self._clip
        stream: Any = self._file.add_stream(codec.name, rate=clip.fps, options=dict(codec.options))
        stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, "yuv420p"
        context = stream.codec_context
        context.color_range, context.colorspace = LIMITED, BT709
        context.color_primaries, context.color_trc = BT709, BT709
        return stream

    def _add_audio(self, sound: Sound) -> Any:
        name, options = self._container.audio
        rate = self._container.rate or sound.rate
        return self._file.add_stream(name, rate=rate, layout="stereo", options=dict(options))

    def picture(self, frame: Frame) -> Picture:
        """I420."""
        return i420(frame)

    def add(self, picture: Picture) -> None:
        """Append a picture, and the sound up to its end."""
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = self._frames, 1 / self._clip.fps
        self._file.mux(self._video.encode(frame))
        self._frames += 1
        self._add_sound(self._frames / self._clip.fps)

    def _add_sound(self, until: Fraction | None) -> None:
        """Append the sound up to a second, or all of it."""
        if self._clip.sound is None:
            return
        waveform, rate = self._clip.sound
        stop = waveform.shape[1] if until is None else min(int(until * rate), waveform.shape[1])
        for first, last in _spans(self._heard, stop):
            part = np.ascontiguousarray(pcm16(waveform[:, first:last]))
            sound = av.AudioFrame.from_ndarray(part, format="s16p", layout="stereo")
            sound.sample_rate, sound.pts, sound.time_base = rate, first, Fraction(1, rate)
            self._file.mux(self._audio.encode(sound))
            self._heard = last

    def finish(self) -> None:
        """Append the rest of the sound, and what the encoders hold back."""
        self._add_sound(None)
        for stream in (self._video, self._audio):
            if stream is not None:
                self._file.mux(stream.encode(None))
        self._file.close()

    def close(self) -> None:
        """Close the file."""
        # What is discarded needs no trailer, and a full disk can't take one.
        with suppress(OSError):
            self._file.close()


def _spans(start: int, stop: int, size: int = 1 << 16) -> Iterator[tuple[int, int]]:
    """Consecutive spans of at most `size`."""
    for first in range(start, stop, size):
        yield first, min(first + size, stop)
