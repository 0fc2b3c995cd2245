"""The pool of compile processes: where they come from, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import hanging
import pytest

from ltx_cache.store import Store
from ltx_run.console import INTERRUPTED
from ltxbuild.compiler.workers import WorkerPool
from ltxbuild.errors import BuildFailed
from ltxbuild.plan.planner import plan_build
from ltxbuild.recipe import load
from ltxbuild.synthetic.shipped import shipped_config

LIMIT = 60.0
"""Seconds; all that is waited for takes a few."""
PROGRAMS = ("connectors", "audio_decoder", "vocoder", "video_decoder")


def _until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.05)


def _runs(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_code_of_the_working_folder_is_not_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key speaks of the packages that this process has, not of those that lie where it was started."""
    for name in ("ltxbuild", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)\n")
    monkeypatch.chdir(tmp_path)
    with WorkerPool(1, store) as pool, pytest.raises(BuildFailed, match="KeyError"):
        pool.compile("empty", {}, {})


def test_a_closed_pool_gives_up_what_runs_and_what_waits(store: Store) -> None:
    """No process takes the place of one that was ended, and nothing is told of compilers that died."""
    with WorkerPool(1, store) as pool, ThreadPoolExecutor(2) as threads:
        first = threads.submit(pool.compile, "runs", {}, {})
        _until(lambda: bool(pool._started))
        os.kill(pool._started[0].process.pid, signal.SIGSTOP)
        second = threads.submit(pool.compile, "waits", {}, {})
        pool.close()
        for given_up in (first, second):
            with pytest.raises(CancelledError):
                given_up.result(LIMIT)
        assert len(pool._started) == 1
        assert not store.log_path("runs").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_compilers_end_with_the_build(how: signal.Signals, tmp_path: Path, store: Store) -> None:
    """With all that they started and their files; no other starts, and no lock is waited for any more."""
    hung, temporary = tmp_path / "hung", tmp_path / "tmp"
    hung.mkdir()
    temporary.mkdir()
    recipe = load(hanging.RECIPE)
    plan = plan_build(recipe, shipped_config(recipe.checkpoint.config), store, None)
    held = next(item.key.digest for item in plan.programs.values() if item.spec.kind == PROGRAMS[0])
    command = [sys.executable, hanging.__file__, str(hung), *PROGRAMS]
    env = {**os.environ, "LTX_HOME": str(store.root), "TMPDIR": str(temporary)}
    with store.lock(f"build-{held}"):
        build = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, start_new_session=True)
        try:
            _until(lambda: bool(list(hung.iterdir())))
            processes = [int(process) for process in next(hung.iterdir()).name.split("-")]
            assert all(_runs(process) for process in processes)
            os.killpg(build.pid, how)
            _, said = build.communicate(timeout=LIMIT)
        finally:
            build.kill()
    assert build.returncode == (INTERRUPTED if how == signal.SIGINT else -how), said
    _until(lambda: not any(_runs(process) for process in processes))
    _until(lambda: not list(temporary.iterdir()))
    assert len(list(hung.iterdir())) == 1
    assert not list(store.root.glob("logs/*"))
