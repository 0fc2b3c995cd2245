"""The transformer split over devices: the traffic it causes, and that it computes the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("sharded_transformer.py")


@pytest.fixture(scope="module")
def report() -> dict[str, float]:
    """What the script found out on two host devices; their number must be set before jax is imported."""
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_split_by_heads_gives_the_same_velocity(report: dict[str, float]) -> None:
    """Heads and feed-forward split over two devices change nothing but the order of sums."""
    assert report["relative_difference"] < 1e-5


def test_tokens_stay_whole_on_every_device(report: dict[str, float]) -> None:
    """Inside the blocks devices only add up: no gather, no exchange, and no more sums than needed.

    Eight for the outputs of attention and feed-forward, and one for each attention's norms of queries and keys,
    before the compiler joins some.
    """
    assert report["gathers_in_blocks"] == 0
    assert 0 < report["sums_in_blocks"] <= 14
