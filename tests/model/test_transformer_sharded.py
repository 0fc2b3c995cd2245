"""The transformer split over devices: that it computes the same, and the traffic that it causes."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from ltx_run.bundle import Census, Collective

SCRIPT = Path(__file__).with_name("sharded_transformer.py")
LAYERS = 3


@pytest.fixture(scope="module")
def report() -> dict[str, dict[str, object]]:
    """What the script found out on four host devices; their number must be set before jax is imported."""
    done = subprocess.run([sys.executable, SCRIPT], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return found


def in_block(report: dict[str, dict[str, object]], layout: str) -> list[Collective]:
    """Collectives inside the loop over blocks."""
    census = msgspec.convert(report[layout]["census"], Census)
    return [each for each in census.collectives if each.loops[-1:] == (LAYERS,)]


@pytest.mark.parametrize("layout", ["heads", "grid"])
def test_the_velocity_is_that_of_one_device(report: dict[str, dict[str, object]], layout: str) -> None:
    """Heads, feed-forward and tokens split over four devices change nothing but the order of sums."""
    assert report[layout]["difference"] < 1e-5


def test_by_heads_devices_only_add_up(report: dict[str, dict[str, object]]) -> None:
    """No gather and no exchange inside the blocks, and no more sums than needed.

    Eight for the outputs of attention and feed-forward, and one for each of the six attentions' norms of
    queries and keys, before the compiler joins some.
    """
    found = in_block(report, "heads")
    assert {each.kind for each in found} == {"all-reduce"}
    assert 0 < sum(each.count for each in found) <= 14


def test_in_a_grid_sums_stay_among_heads(report: dict[str, dict[str, object]]) -> None:
    """Sums span the two devices along heads; what is gathered spans the two along tokens, once per block.

    Gathered are 34 matrices (five for each of six attentions, four of feed-forward), and the keys and values
    of video where video or audio asks for them.
    """
    found = in_block(report, "grid")
    sums = [each for each in found if each.kind == "all-reduce"]
    gathers = [each for each in found if each.kind == "all-gather"]
    assert {each.kind for each in found} == {"all-reduce", "all-gather"}
    assert 0 < sum(each.count for each in sums) <= 14
    assert sum(each.count for each in gathers) <= 6 * 5 + 4 + 4
    assert {each.group for each in gathers} == {2}
