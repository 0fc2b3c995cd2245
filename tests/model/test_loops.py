"""Loops that collect results: the same as lax.map, and nothing is written twice."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax
from jax.typing import DTypeLike

from ltxbuild.model import loops
from ltxbuild.model.layers import attention, linear, run_layers
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
        got = loops.collect(function, pairs)
        assert got.dtype == dtype
        assert np.array_equal(got, want)


def test_floats_undoes_bits() -> None:
    """Of both dtypes; what was never turned into bits stays."""
    numbers = jnp.asarray([1.5, -3], jnp.bfloat16), jnp.asarray([1.5])
    for x in numbers:
        back = loops.floats(loops.bits(x))
        assert back.dtype == x.dtype
        assert np.array_equal(back, x)
    for x in (*numbers, jnp.asarray([True, False]), jnp.asarray([3])):
        assert loops.floats(x) is x


def test_layers_as_bits_are_not_widened() -> None:
    """Compiled for a CPU, a loop over layers takes one layer's weights out of the stack, in bf16."""

    def program(weights: Array, x: Array, *, handed: Callable[[Array], Array]) -> Array:
        def body(x: Array, layer: dict[str, Array]) -> Array:
            return linear(layer, x)

        return run_layers(body, x, {"weight": handed(weights)})

    rng = np.random.default_rng(0)
    weights, x = (jnp.asarray(rng.standard_normal(s), jnp.bfloat16) for s in ((5, 64, 64), (16, 64)))
    made, widened = {}, {}
    for handed in (loops.bits, jnp.asarray):
        lowered = jax.jit(partial(program, handed=handed)).lower(weights, x)
        compiled = lowered.compile(dict(target("cpu").flags("video_decoder")))
        made[handed] = compiled(weights, x)
        widened[handed] = "f32[5,64,64]" in compiled.as_text()
    assert np.array_equal(made[loops.bits], made[jnp.asarray])
    assert list(widened.values()) == [False, True]


def test_attention_in_blocks_collects_bits() -> None:
    """Compiled for a CPU, the loop over blocks of queries adds to whole numbers."""
    shape = (1, 512, 2, 16)
    q = jnp.zeros(shape, jnp.bfloat16)
    program = jax.jit(lambda q: attention(q, q, q, scale=1.0, kind="blocked"))
    text = program.lower(q).compile(dict(target("cpu").flags("denoise"))).as_text()
    assert set(re.findall(r"= (\w+)\[[\d,]*\]\S* dynamic-update-slice\(", text)) == {"u16"}
