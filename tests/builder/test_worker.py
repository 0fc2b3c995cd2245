"""What the compile process takes from programs that were compiled before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from ltx_cache.store import Store
from ltxbuild import build
from ltxbuild.compiler import lower
from ltxbuild.compiler.worker import compile_job
from ltxbuild.compiler.workers import WorkerPool
from ltxbuild.plan.planner import plan_build
from ltxbuild.recipe import load
from ltxbuild.synthetic.shipped import shipped_config

RECIPE = Path(__file__).parents[2] / "recipes/cpu_tiny.yaml"


class Here:
    """Compiles in this process."""

    def __init__(self, store: Path) -> None:
        self._store = store

    def compile(self, name: str, job: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
        """What the compile process answers."""
        return compile_job(job, self._store)


def test_an_equal_program_is_taken_and_counted_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was compiled before the executable stays; operations are those that this version counts."""
    recipe = load(RECIPE)
    plan = plan_build(recipe, shipped_config(recipe.checkpoint.config), Store(tmp_path), None)
    item = next(item for item in plan.programs.values() if item.spec.kind == "connectors")
    pool = cast(WorkerPool, Here(tmp_path))
    first = build.lowered(plan, item, pool)
    monkeypatch.setattr(lower, "count", lambda jaxpr: 7)
    second = build.lowered(plan, item, pool)
    assert (first["reused"], second["reused"]) == (False, True)
    assert second["executable"] == first["executable"]
    assert first["flops"] > 7
    assert second["flops"] == 7
