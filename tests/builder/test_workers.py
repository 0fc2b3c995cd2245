"""The pool of compile processes: where they come from, and how they end."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltx_cache.store import Store
from ltxbuild.compiler.workers import WorkerPool
from ltxbuild.errors import BuildFailed


def test_code_of_the_working_folder_is_not_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key speaks of the packages that this process has, not of those that lie where it was started."""
    for name in ("ltxbuild", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)\n")
    monkeypatch.chdir(tmp_path)
    with WorkerPool(1, store) as pool, pytest.raises(BuildFailed, match="KeyError"):
        pool.compile("empty", {}, {})
