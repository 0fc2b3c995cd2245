"""Loops that collect results: the same as lax.map, and nothing is written twice."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax
from jax.typing import DTypeLike

from ltxbuild.model import loops
from ltxbuild.model.layers import attention
from ltxbuild.targets import target


def _scaled(pair: tuple[Array, Array]) -> Array:
    return pair[0] * pair[1]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_equals_map(dtype: DTypeLike) -> None:
    """Bit for bit, also where the function gives bits."""
    rng = np.random.default_rng(0)
    pairs = (jnp.asarray(rng.standard_normal((5, 3)), dtype), jnp.asarray(rng.standard_normal((5, 1)), dtype))
    want = lax.map(_scaled, pairs)
    for function in (_scaled, lambda pair: loops.bits(_scaled(pair))):
        got = loops.collect(function, pairs, dtype)
        assert got.dtype == dtype
        assert np.array_equal(got, want)


def test_attention_in_blocks_collects_bits() -> None:
    """Compiled for a CPU, the loop over blocks of queries adds to whole numbers."""
    shape = (1, 512, 2, 16)
    q = jnp.zeros(shape, jnp.bfloat16)
    program = jax.jit(lambda q: attention(q, q, q, scale=1.0, kind="blocked"))
    text = program.lower(q).compile(dict(target("cpu").flags("denoise"))).as_text()
    assert set(re.findall(r"= (\w+)\[[\d,]*\]\S* dynamic-update-slice\(", text)) == {"u16"}
