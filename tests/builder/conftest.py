"""Fixtures of the builder's tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command, command

from ltx_cache.store import Store


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, for tests of many kills: these keep the page cache, so flushes prove nothing."""
    there = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=there if there.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


@pytest.fixture
def ltxbuild(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line on the store."""
    monkeypatch.setenv("LTX_HOME", str(store.root))
    return command(capsys)
