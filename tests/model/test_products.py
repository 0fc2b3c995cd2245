"""Convolutions as matrix products: what the form is for. That it equals torch is in test_conv."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltxbuild.model import conv, products
from ltxbuild.targets import target

SIDES = ((1, 1), (1, 1))


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames cut into bands of rows give the bits of whole frames."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((4, 48, 5, 8)), jnp.bfloat16)
    weight = jnp.asarray(rng.standard_normal((3, 3, 3, 8, 4)), jnp.bfloat16)
    bias = jnp.asarray(rng.standard_normal(4), jnp.float32)
    whole = products.convolve(weight, bias, x, SIDES)
    monkeypatch.setattr(products, "BAND_BYTES", 26 * 4 * 5 * 9 * 4)
    assert products.band_rows(48, 3, 4 * 5 * 9 * 4) == 24
    assert np.array_equal(whole, products.convolve(weight, bias, x, SIDES))


def test_bands_fit_and_are_not_thin() -> None:
    """The largest divisor whose product fits; whole frames where only thin bands would fit."""
    row = 4 * 128 * 9 * 128
    assert products.band_rows(96, 3, row) == 32
    assert products.band_rows(12, 3, row) == 12
    assert products.band_rows(96, 3, 8 * row) == 96
    assert products.band_rows(97, 3, row) == 97


def test_compiled_loop_moves_bits() -> None:
    """XLA:CPU would widen bf16 that a loop collects or reads: all frames of it, for every frame."""
    params = {"weight": jnp.zeros((3, 3, 3, 8, 4), jnp.bfloat16), "bias": jnp.zeros(4, jnp.bfloat16)}
    x = jnp.zeros((9, 6, 5, 8), jnp.bfloat16)
    program = jax.jit(lambda p, x: conv.convolve3d(p, x, "products"))
    text = program.lower(params, x).compile(dict(target("cpu").flags("video_decoder"))).as_text()
    moved = re.findall(r"= (\w+)\[[\d,]*\]\S* dynamic-(?:update-)?slice\(", text)
    assert "u16" in moved
    assert not {"bf16", "f32"} & set(moved)
