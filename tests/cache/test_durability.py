"""A power cut keeps what was flushed and any part of the rest: the order of the calls decides."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import crashing
import pytest

from ltx_cache.store import Store

STAMPS = "stamps"
"""What lies there is not flushed: it checks itself, and a lost one costs a hash."""


class Recorder:
    """Watches the calls that matter, and asserts the order that survives a power cut.

    Attributes:
        renamed: Targets of renames, in order.
        unsettled: Folders whose names changed since they were last flushed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.renamed: list[Path] = []
        self.unsettled: set[Path] = set()
        self._paths: dict[int, Path] = {}
        self._dirty: set[Path] = set()
        for name in ("open", "write", "fsync", "replace", "mkdir"):
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, call: Any) -> Any:
        def wrapped(*args: Any, **named: Any) -> Any:
            result = call(*args, **named)
            getattr(self, f"_{name}")(result, *args)
            return result

        return wrapped

    def _open(self, fd: int, path: Any, *_: Any) -> None:
        self._paths[fd] = Path(path)

    def _write(self, _: int, fd: int, *__: Any) -> None:
        self._dirty.add(self._paths[fd])

    def _fsync(self, _: None, fd: int) -> None:
        self._dirty.discard(self._paths[fd])
        self.unsettled.discard(self._paths[fd])

    def _replace(self, _: None, source: Path, target: Path) -> None:
        if target.parent.name == STAMPS:
            return
        assert source not in self._dirty, f"{target} was renamed before its bytes were flushed"
        others = self.unsettled - {target.parent}
        assert not others, f"{target} became visible before {others}"
        self.renamed.append(target)
        self.unsettled.add(target.parent)

    def _mkdir(self, _: None, path: Any, *__: Any) -> None:
        if Path(path).name != STAMPS:
            self.unsettled.add(Path(path).parent)


def test_bytes_then_name_then_folder(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is flushed before its rename, its folder before the next rename and before the end."""
    recorder = Recorder(monkeypatch)
    crashing.prepare(store)
    crashing.work(store)
    folders = [str(path.relative_to(store.root)).split("/")[0] for path in recorder.renamed]
    assert folders == [
        "VERSION",
        *("blobs", "entries", "refs"),
        *("blobs", "entries", "blobs", "refs"),
    ]
    assert not recorder.unsettled


def test_a_blob_that_is_there_is_flushed_before_it_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have renamed the blob and not yet flushed its folder; then we do."""
    ref = store.put_bytes(b"same")
    recorder = Recorder(monkeypatch)
    folder = store.open(ref).parent
    recorder.unsettled.add(folder)
    store.put_bytes(b"same")
    assert recorder.renamed == []
    assert not recorder.unsettled
