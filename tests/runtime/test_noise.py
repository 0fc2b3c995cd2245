"""Noise: golden values, an independent generator, and statistics."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from ltx_run.noise import normal

GOLDEN = [0.09887393, 0.66478276, 1.3407527, -0.27392757]
"""First values of seed 10, draw 0."""


def philox(key: tuple[int, int], counter: int) -> list[int]:
    """One block of Philox4x64-10, after Salmon et al. 2011."""
    low, mask = counter, 2**64 - 1
    x, (k0, k1) = [low, 0, 0, 0], key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
        x = [(second >> 64) ^ x[1] ^ k0, second & mask, (first >> 64) ^ x[3] ^ k1, first & mask]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return x


def reference(seed: int, draw: int, count: int) -> list[float]:
    """The documented recipe, word by word."""
    values: list[float] = []
    for block in range(-(-count // 4)):
        words = philox((seed, draw), block + 1)
        for a, b in (words[:2], words[2:]):
            u, v = ((a >> 11) + 1) / 2**53, (b >> 11) / 2**53
            r = math.sqrt(-2 * math.log(u))
            values += [r * math.cos(2 * math.pi * v), r * math.sin(2 * math.pi * v)]
    return values[:count]


def test_golden_values() -> None:
    """A seed means these numbers, in this version and every later one."""
    assert normal(seed=10, draw=0, shape=(4,), dtype="float32").tolist() == [np.float32(x) for x in GOLDEN]


@pytest.mark.parametrize(("seed", "draw"), [(0, 0), (10, 3), (2**64 - 1, 1)])
def test_documented_recipe(seed: int, draw: int) -> None:
    """The generator is the one the documentation describes."""
    found = normal(seed=seed, draw=draw, shape=(3, 7), dtype="float32").reshape(-1)
    assert np.allclose(found, reference(seed, draw, 21), rtol=1e-6, atol=0)


def test_draws_and_seeds_differ() -> None:
    """Streams of another seed or draw share no values."""
    streams = [normal(seed=s, draw=d, shape=(64,), dtype="float32") for s in (1, 2) for d in (0, 1)]
    assert len({value for stream in streams for value in stream.tolist()}) == 4 * 64


def test_shape_does_not_change_the_stream() -> None:
    """Values fill a tensor in row-major order, whatever its shape."""
    flat = normal(seed=5, draw=0, shape=(24,), dtype="float32")
    assert np.array_equal(normal(seed=5, draw=0, shape=(2, 3, 4), dtype="float32").reshape(-1), flat)


def test_bfloat16_is_the_rounded_float32() -> None:
    """Another dtype gets the same values, rounded."""
    exact = normal(seed=5, draw=0, shape=(1000,), dtype="float32")
    rounded = normal(seed=5, draw=0, shape=(1000,), dtype="bfloat16")
    assert rounded.dtype == ml_dtypes.bfloat16
    assert np.array_equal(rounded, exact.astype(ml_dtypes.bfloat16))


def test_moments() -> None:
    """A hundred thousand values have the moments of the normal distribution, within five standard errors."""
    values = normal(seed=1, draw=0, shape=(100_000,), dtype="float32").astype(np.float64)
    for moment, expected, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((values**moment).mean() - expected) < 5 * math.sqrt(spread / 100_000)
