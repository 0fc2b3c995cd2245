"""Notes the calls by which a program changes files, for `power_disk`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import pytest
from power_disk import Call, Disk


class Recorder:
    """Watches the files below a folder within a `with` block.

    Attributes:
        calls: What was noted.
        disk: What has come of the calls.
    """

    def __init__(self, root: Path, disk: Disk) -> None:
        self.calls: list[Call] = []
        self.disk = disk
        self._root = root
        self._numbers = itertools.count(max(disk.cached, default=0) + 1)
        self._open: dict[int, int | PurePath] = {}
        self._patch = pytest.MonkeyPatch()

    def told(self, note: str) -> None:
        """The program was told that something is done."""
        self.calls.append(Call("told", note=note))

    def __enter__(self) -> Recorder:
        for name in ("open", "write", "fsync", "ftruncate", "replace", "mkdir", "unlink"):
            self._patch.setattr(os, name, _noted(getattr(os, name), getattr(self, f"_{name}_done")))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def _note(self, kind: str, *paths: PurePath, file: int = -1, data: bytes = b"") -> None:
        self.calls.append(Call(kind, paths, file, data))
        self.disk.apply(self.calls[-1])

    def _name(self, path: str | Path) -> PurePath | None:
        """The path below the root; None if it isn't."""
        pure = PurePath(path)
        return pure.relative_to(self._root) if pure.is_relative_to(self._root) else None

    def _open_done(self, fd: int, path: str | Path, flags: int, *_: Any) -> None:
        self._open.pop(fd, None)
        if (name := self._name(path)) is None:
            return
        if flags & os.O_DIRECTORY:
            self._open[fd] = name
            return
        file = self.disk.number(name)
        if file is None:
            file = next(self._numbers)
            self._note("create", name, file=file)
        elif flags & os.O_TRUNC:
            self._note("truncate", file=file)
        self._open[fd] = file

    def _write_done(self, count: int, fd: int, data: bytes | memoryview) -> None:
        if isinstance(file := self._open.get(fd), int):
            self._note("write", file=file, data=bytes(data[:count]))

    def _fsync_done(self, _: None, fd: int) -> None:
        match self._open.get(fd):
            case int(file):
                self._note("sync", file=file)
            case PurePath() as folder:
                self._note("settle", folder)

    def _ftruncate_done(self, _: None, fd: int, size: int) -> None:
        if isinstance(file := self._open.get(fd), int):
            self._note("truncate", file=file, data=self.disk.cached[file][:size])

    def _replace_done(self, _: None, source: str | Path, target: str | Path) -> None:
        old, new = self._name(source), self._name(target)
        if old and new and (file := self.disk.number(old)) is not None:
            self._note("move", old, new, file=file)

    def _mkdir_done(self, _: None, path: str | Path, *__: Any) -> None:
        if name := self._name(path):
            self._note("mkdir", name)

    def _unlink_done(self, _: None, path: str | Path, *__: Any) -> None:
        if name := self._name(path):
            self._note("unlink", name)


def _noted(call: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
    def noted(*args: Any, **named: Any) -> Any:
        result = call(*args, **named)
        note(result, *args)
        return result

    return noted
