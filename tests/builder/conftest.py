"""Fixtures of the builder's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltx_cache.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")
