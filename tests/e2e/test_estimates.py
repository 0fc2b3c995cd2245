"""Memory estimated before a build against what the compiler reports of the built programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from systems import System

from ltx_cache.store import Store
from ltxbuild.plan.activations import ACCURACY
from ltxbuild.plan.memory import footprint
from ltxbuild.plan.planner import plan_build
from ltxbuild.recipe import load
from ltxbuild.synthetic.shipped import shipped_config

pytestmark = pytest.mark.xdist_group("e2e")


@pytest.mark.parametrize("bundle", ["float32", "one_stage", "four_devices"])
def test_estimates_are_near_the_compilers_figures(
    system: System, bundle: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Arguments to the byte, scratch memory within the stated factor, for every program of the tiny model."""
    built = request.getfixturevalue(bundle)
    manifest = system.manifest(built)
    plan = plan_build(load(system.recipe(built)), shipped_config("ltx-2.3-tiny"), Store(tmp_path), None)
    wrong: dict[str, Any] = {}
    for name, item in plan.programs.items():
        estimate, told = footprint(item, plan), manifest["programs"][name]["memory"]
        assert estimate.estimated
        temp = told["temp"] + told["outputs"]
        if not 1 / ACCURACY < estimate.temp / temp < ACCURACY or estimate.arguments != told["arguments"]:
            wrong[name] = (estimate, told)
    assert not wrong
