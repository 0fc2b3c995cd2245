"""What is written, the protocol of those who write it, and the writers of silent pictures.

An encoder takes frames one by one and needs no more memory for a long video than for a short one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import av
import av.filter
import numpy as np
from numpy.typing import NDArray

from ltx_run.pictures import Frame, Picture, rgb24
from ltx_run.png import png

FRAME = "frame_{:05}.png"


class Sound(NamedTuple):
    """A waveform `[2, N]` in [-1, 1], and how many samples there are per second."""

    waveform: NDArray[Any]
    rate: int


@dataclass(frozen=True)
class Clip:
    """What is to be written.

    Attributes:
        width: Even number of pixels.
        height: Even number of pixels.
        frames: Frames that will come.
        fps: Frames per second.
        sound: None for silence.
        tags: Texts for the file to carry, by FFmpeg's names; it keeps those that it has a place for.
    """

    width: int
    height: int
    frames: int
    fps: Fraction
    sound: Sound | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


class Encoder(Protocol):
    """Writes one file or directory, to a path that nobody else uses."""

    def picture(self, frame: Frame) -> Picture:
        """A frame f32 `[H, W, 3]` in [0, 1] as `add` takes it; another thread may call this meanwhile."""

    def add(self, picture: Picture) -> None:
        """Append a picture."""

    def finish(self) -> None:
        """Write what is left; the file is complete."""

    def close(self) -> None:
        """Let go of everything, finished or not."""


class Gif:
    """A GIF that repeats; each frame has the 256 colours that suit it best."""

    def __init__(self, path: Path, clip: Clip) -> None:
        """Open the file."""
        self._path, self._clip = path, clip
        self._frames = 0
        self._file = av.open(str(path), "w", format="gif")
        self._stream: Any = self._file.add_stream("gif", rate=clip.fps)
        self._stream.width, self._stream.height = clip.width, clip.height
        self._stream.pix_fmt = "pal8"
        # The graph's parts don't keep it alive, and crash without it.
        self._graph, self._source, self._sink = _palette_graph(clip)

    def picture(self, frame: Frame) -> Picture:
        """RGB."""
        return rgb24(frame)

    def add(self, picture: Picture) -> None:
        """Append a picture."""
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = self._frames, 1 / self._clip.fps
        self._source.push(frame)
        self._frames += 1
        self._drain()

    def _drain(self) -> None:
        with suppress(av.error.BlockingIOError, av.error.EOFError):
            while True:
                self._file.mux(self._stream.encode(self._sink.pull()))

    def finish(self) -> None:
        """Write what is held back, then the comment, which FFmpeg reads and doesn't write."""
        self._source.push(None)
        self._drain()
        self._file.mux(self._stream.encode(None))
        self._file.close()
        comment = self._clip.tags.get("comment", "").encode()
        if comment:
            with self._path.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"\x21\xfe" + b"".join(_blocks(comment)) + b"\0;")

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            self._file.close()


def _palette_graph(clip: Clip) -> tuple[Any, Any, Any]:
    """Graph, source and sink of a filter from RGB to a palette for each frame."""
    graph: Any = av.filter.Graph()
    source = graph.add_buffer(width=clip.width, height=clip.height, format="rgb24", time_base=1 / clip.fps)
    copies, sink = graph.add("split"), graph.add("buffersink")
    palette, use = graph.add("palettegen", "stats_mode=single"), graph.add("paletteuse", "new=1")
    source.link_to(copies)
    copies.link_to(use, 0, 0)
    copies.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph, source, sink


def _blocks(data: bytes) -> Iterator[bytes]:
    """Blocks of at most 255 bytes, each after its length."""
    for start in range(0, len(data), 255):
        block = data[start : start + 255]
        yield bytes([len(block)]) + block


class PngDirectory:
    """A directory with a PNG file per frame."""

    def __init__(self, path: Path, clip: Clip) -> None:
        """Make the directory."""
        self._path, self._clip = path, clip
        self._frames = 0
        path.mkdir()

    def picture(self, frame: Frame) -> Picture:
        """RGB."""
        return rgb24(frame)

    def add(self, picture: Picture) -> None:
        """Write a file; the first one is number 1."""
        self._frames += 1
        (self._path / FRAME.format(self._frames)).write_bytes(png(picture, self._clip.tags))

    def finish(self) -> None:
        """Nothing is left."""

    def close(self) -> None:
        """Nothing is open."""


COLUMNS, CELLS = 4, 12
CELL = 384
"""Pixels of a cell's longer side, at most."""


class ContactSheet:
    """One PNG file with frames from the whole video, evenly spaced, in rows of four."""

    def __init__(self, path: Path, clip: Clip) -> None:
        """Lay the sheet out: as large as that many cells need."""
        self._path, self._clip = path, clip
        count = min(CELLS, clip.frames)
        self._cells = {round(i * (clip.frames - 1) / max(count - 1, 1)): i for i in range(count)}
        scale = min(1.0, CELL / max(clip.height, clip.width))
        self._height, self._width = round(clip.height * scale), round(clip.width * scale)
        columns = min(COLUMNS, count)
        self._sheet = np.zeros((-(-count // columns) * self._height, columns * self._width, 3), np.uint8)
        self._columns = columns
        self._frames = 0

    def picture(self, frame: Frame) -> Picture:
        """RGB."""
        return rgb24(frame)

    def add(self, picture: Picture) -> None:
        """Put a picture into its cell, if it has one."""
        cell = self._cells.get(self._frames)
        self._frames += 1
        if cell is not None:
            row, column = divmod(cell, self._columns)
            top, left = row * self._height, column * self._width
            self._sheet[top : top + self._height, left : left + self._width] = self._scaled(picture)

    def _scaled(self, picture: Picture) -> Picture:
        frame: Any = av.VideoFrame.from_ndarray(picture, format="rgb24")
        scaled: Picture = frame.reformat(self._width, self._height, interpolation="AREA").to_ndarray()
        return scaled

    def finish(self) -> None:
        """Write the file."""
        self._path.write_bytes(png(self._sheet, self._clip.tags))

    def close(self) -> None:
        """Nothing is open."""
