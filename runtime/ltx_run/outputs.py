"""Where videos go: which files can be written, and that nothing half written has a target's name.

Each output is written beside its target under a hidden temporary name and renamed when it is complete.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import av

from ltx_run.background import Background
from ltx_run.encoders import Clip, ContactSheet, Encoder, Gif, PngDirectory
from ltx_run.errors import OutputError
from ltx_run.movie import MP4, WAV, WEBM, Movie
from ltx_run.pictures import Frame
from ltx_run.targets import check_regular, looking_at, named, temporary

SHEET_SUFFIX = ".png"
FRAMES_PATTERN = "frame_[0-9]*.png"


class Kind(NamedTuple):
    """A kind of output: how it is opened, and what it takes."""

    encoder: Callable[[Path, Clip], Encoder]
    pictures: bool
    sound: bool


KINDS: Mapping[str, Kind] = {
    ".mp4": Kind(partial(Movie, MP4), pictures=True, sound=True),
    ".webm": Kind(partial(Movie, WEBM), pictures=True, sound=True),
    ".gif": Kind(Gif, pictures=True, sound=False),
    ".wav": Kind(partial(Movie, WAV), pictures=False, sound=True),
}
"""By suffix."""
FRAMES = Kind(PngDirectory, pictures=True, sound=False)
SHEET = Kind(ContactSheet, pictures=True, sound=False)


def kind_of(path: Path, *, directory: bool) -> Kind:
    """The kind of a path.

    Args:
        path: Of the output.
        directory: Whether it is to be a directory of PNG files; an existing directory is one anyway.

    Raises:
        OutputError: It has a suffix that says nothing.
    """
    if directory or _is_dir(path):
        return FRAMES
    if path.suffix.lower() not in KINDS:
        raise OutputError(
            f"cannot write {path}: the suffix must be one of {', '.join(KINDS)}",
            hint=f"{path}/ is a directory with a PNG file per frame",
        )
    return KINDS[path.suffix.lower()]


def _is_dir(path: Path) -> bool:
    """Whether a path is a directory; one that can't be looked at is none, and `check` says why."""
    with suppress(OSError):
        return path.is_dir()
    return False


def check(path: Path, kind: Kind | None = None) -> None:
    """Refuse a path that can't be written, as far as that can be known now.

    Raises:
        OutputError: Says why.
    """
    with looking_at(path):
        _check(path, kind)


def _check(path: Path, kind: Kind | None) -> None:
    target = path.resolve()
    folder = target.parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: there is no directory {folder}", hint=f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write {path}: its directory is read-only")
    if kind is FRAMES and path.exists():
        _check_replaceable(path)
    elif path.is_dir():
        raise OutputError(f"cannot write {path}: it is a directory")
    else:
        check_regular(path)
    _check_name(path, temporary(target))


def _check_replaceable(path: Path) -> None:
    """A directory of frames may be replaced, and nothing else."""
    if not path.is_dir():
        raise OutputError(f"cannot write {path}/: it is a file")
    others = sorted(item.name for item in path.iterdir() if not item.match(FRAMES_PATTERN))
    if others:
        raise OutputError(
            f"cannot replace {path}: {others[0]} in it is no frame of a video", hint=f"-o {path}/frames/"
        )


def _check_name(path: Path, hidden: Path) -> None:
    """The name that a file has until it is complete is longer than its own."""
    try:
        hidden.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        length = len(os.fsencode(path.name))
        more = len(os.fsencode(hidden.name)) - length
        raise OutputError(
            f"cannot write {path}: the name of {length} bytes is too long: it has {more} more until the file "
            "is complete",
            hint="use a shorter name",
        ) from None


class Output:
    """One output that is being written: `frame` for each frame inside a `with` block.

    Attributes:
        kind: What is written.
    """

    def __init__(self, kind: Kind, path: Path, clip: Clip, depth: int = 0) -> None:
        """Open it.

        Args:
            kind: What is written.
            path: Where it goes when it is complete.
            clip: What will come.
            depth: Frames that may wait for a thread that encodes them; 0 to encode them at once.

        Raises:
            OSError: It can't be written.
        """
        self.kind = kind
        self._path = path.resolve()
        self._temporary = temporary(self._path)
        with self._writing():
            _remove(self._temporary)
            encoder = kind.encoder(self._temporary, clip)
        self._encoder: Encoder = Background(encoder, depth) if depth else encoder

    def frame(self, frame: Frame) -> None:
        """Append a frame f32 `[H, W, 3]` in [0, 1], which may change afterwards.

        Raises:
            OSError: It, or an earlier one, can't be written.
        """
        with self._writing():
            self._encoder.add(self._encoder.picture(frame))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Errors name the file that the user knows; those of FFmpeg become the system's."""
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            raise named(error, self._path) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with self._writing():
                    self._encoder.finish()
                    _publish(self._temporary, self._path)
        finally:
            self._encoder.close()
            _remove(self._temporary)


def _publish(temporary: Path, path: Path) -> None:
    """Give what is complete its name, in place of what has it."""
    for file in temporary.iterdir() if temporary.is_dir() else [temporary]:
        with file.open("rb") as written:
            os.fsync(written.fileno())
    if temporary.is_dir() and path.is_dir():
        older = temporary.with_suffix(".old")
        path.replace(older)
        temporary.replace(path)
        _remove(older)
    else:
        temporary.replace(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
