"""Fixtures of the builder's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Command, command

from ltx_cache.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


@pytest.fixture
def ltxbuild(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line on the store."""
    monkeypatch.setenv("LTX_HOME", str(store.root))
    return command(capsys)
