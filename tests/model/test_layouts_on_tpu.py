"""Layouts of the transformer as v6e's own compiler makes them: where the traffic comes from."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from ltx_run.bundle import Census, Collective
from ltxbuild.cli.inspect import sent
from ltxbuild.environment import scrubbed
from ltxbuild.targets import target

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu is not installed"),
]
SCRIPT = Path(__file__).with_name("layouts_on_tpu.py")
LAYERS = 3


@pytest.fixture(scope="module")
def blocks() -> dict[str, list[Collective]]:
    """Collectives of one block in each layout."""
    environment = target("tpu").environment({"topology": "v6e:2x4"}, 8)
    path = os.pathsep.join((str(SCRIPT.parent), *filter(None, [os.environ.get("PYTHONPATH")])))
    done = subprocess.run(
        [sys.executable, SCRIPT],
        env={**scrubbed(), **environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        name: [each for each in msgspec.convert(made, Census).collectives if each.loops[-1:] == (LAYERS,)]
        for name, made in found.items()
    }


def count(found: list[Collective], kind: str) -> int:
    """Collectives of a kind."""
    return sum(each.count for each in found if each.kind == kind)


def test_kernels_split_along_the_sum_cost_more(blocks: dict[str, list[Collective]]) -> None:
    """Queries, keys, values and the inner width of feed-forward are summed up over devices as a whole."""
    traffic = {name: sum(map(sent, found)) for name, found in blocks.items()}
    assert traffic["mistake"] > 2 * traffic["heads"]
    assert count(blocks["mistake"], "all-reduce") > count(blocks["heads"], "all-reduce")
    assert count(blocks["mistake"], "all-gather") > 0


def test_by_heads_one_sum_per_projection(blocks: dict[str, list[Collective]]) -> None:
    """Eight results and six norms, some of them joined by the compiler; nothing else is exchanged."""
    assert {each.kind for each in blocks["heads"]} == {"all-reduce"}
    assert count(blocks["heads"], "all-reduce") <= 14


def test_in_a_grid_only_weights_and_keys_are_gathered(blocks: dict[str, list[Collective]]) -> None:
    """34 matrices, and the video's keys and values where video and audio ask for them."""
    assert {each.kind for each in blocks["grid"]} == {"all-reduce", "all-gather"}
    assert count(blocks["grid"], "all-reduce") <= 14
    assert count(blocks["grid"], "all-gather") <= 38
