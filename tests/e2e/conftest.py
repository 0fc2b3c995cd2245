"""One cache, one tiny checkpoint and the bundles of all tests.

With `LTX_E2E_HOME` naming a directory, the cache is kept there between sessions, and programs that did not
change are not compiled again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from systems import LONG, RECIPES, Official, System

VARIANTS = (
    "variants: {default: {height: 128, width: 192, frames: 17, fps: 24}, "
    f"long: {{height: {LONG.height}, width: {LONG.width}, frames: {LONG.frames}, fps: 24}}}}\n"
)


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark that pytest-xdist brings, for sessions without it."""
    config.addinivalue_line("markers", "xdist_group(name): tests that one worker runs")


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    """The command lines on a fresh checkpoint."""
    folder = tmp_path_factory.mktemp("e2e")
    return System(folder, Path(os.environ.get("LTX_E2E_HOME", folder / "home")))


@pytest.fixture(scope="session")
def official(system: System) -> Official:
    """The official system."""
    # Threads of torch that wait for a busy core spin, and make everything slower.
    torch.set_num_threads(1)
    return Official(system.files)


@pytest.fixture(scope="session")
def one_stage(system: System) -> str:
    """The smallest bundle, as shipped."""
    return system.compile(RECIPES / "cpu_tiny.yaml")


@pytest.fixture(scope="session")
def two_stage(system: System) -> str:
    """Both stages, at one size."""
    variants = "variants: {default: {height: 128, width: 192, frames: 17, fps: 24}}\n"
    return system.compile(system.extend("cpu_tiny_two_stage.yaml", "e2e-two-stage", variants))


@pytest.fixture(scope="session")
def stepwise(system: System) -> str:
    """Both stages with the loop outside the programs."""
    text = "loop: stepwise\nvariants: {default: {height: 128, width: 192, frames: 17, fps: 24}}\n"
    return system.compile(system.extend("cpu_tiny_two_stage.yaml", "e2e-stepwise", text))


@pytest.fixture(scope="session")
def other_forms(system: System) -> str:
    """The smallest bundle with layers written out and attention in blocks of queries."""
    text = "layers: unroll\nattention: blocked\n"
    return system.compile(system.extend("cpu_tiny.yaml", "e2e-other-forms", text))


@pytest.fixture(scope="session")
def padded(system: System, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The smallest bundle, its rows of weights taken for ones that alias in caches from 32 numbers on."""
    tool = tmp_path_factory.mktemp("padded") / "ltxbuild"
    start = "import ltxbuild.cli.main, ltxbuild.plan.forms as forms; forms.ALIASED_ROW = 32"
    tool.write_text(f"#!{sys.executable}\n{start}; ltxbuild.cli.main.main()\n", encoding="utf-8")
    tool.chmod(0o755)
    return system.compile(system.extend("cpu_tiny.yaml", "e2e-padded", ""), str(tool))


@pytest.fixture(scope="session")
def four_devices(system: System) -> str:
    """The smallest bundle split over four devices, as shipped."""
    return system.compile(RECIPES / "cpu_tiny_tp4.yaml")


@pytest.fixture(scope="session")
def grid(system: System) -> str:
    """One stage in f32, its transformer split by tokens and heads over four devices."""
    text = "precision: float32\ntarget: {profile: trillium, tensor_parallel: 2, context_parallel: 2}\n"
    return system.compile(system.extend("cpu_tiny.yaml", "e2e-grid", text + VARIANTS))


@pytest.fixture(scope="session")
def float32(system: System) -> str:
    """Both stages in f32, at the smallest size and at one that is decoded in tiles."""
    text = f"precision: float32\n{VARIANTS}"
    return system.compile(system.extend("cpu_tiny_two_stage.yaml", "e2e-float32", text))
