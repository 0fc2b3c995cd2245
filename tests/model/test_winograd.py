"""Convolutions by Winograd's sums: equal to plain ones for every shape, and as exact as bf16 allows."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax

from ltxbuild.model import products, winograd
from ltxbuild.model.products import Padding2d
from ltxbuild.targets import target

AROUND = ((1, 1), (1, 1))


def _drawn(shape: tuple[int, ...], channels: int, outputs: int, depth: int) -> tuple[Array, Array, Array]:
    """Weights, bias and a video in f32."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((depth, 3, 3, channels, outputs)) / (depth * 9 * channels) ** 0.5
    drawn = (weight, rng.standard_normal(outputs), rng.standard_normal((*shape, channels)))
    return tuple(jnp.asarray(values, jnp.float32) for values in drawn)  # type: ignore[return-value]


def _plain(weight: Array, bias: Array, x: Array, padding: Padding2d) -> Array:
    """The platform's 3-D convolution."""
    order = ("NDHWC", "DHWIO", "NDHWC")
    made = lax.conv_general_dilated(x[None], weight, (1, 1, 1), ((0, 0), *padding), dimension_numbers=order)
    return made[0] + bias


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 4, 6), (4, 5, 7), (5, 12, 3)], ids=str)
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("padding", [AROUND, ((2, 0), (1, 1)), ((1, 1), (2, 0))], ids=str)
def test_equals_a_plain_convolution(shape: tuple[int, int, int], depth: int, padding: Padding2d) -> None:
    """Even and odd sizes, with and without neighbours in time, padded on one side or on both."""
    weight, bias, x = _drawn((shape[0] + depth - 1, *shape[1:]), 6, 5, depth)
    got = winograd.convolve(weight, bias, x, padding)
    np.testing.assert_allclose(got, _plain(weight, bias, x, padding), atol=5e-6)


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames cut into bands of rows give what whole frames give."""
    weight, bias, x = _drawn((4, 48, 6), 8, 4, 3)
    whole = winograd.convolve(weight, bias, x, AROUND)
    monkeypatch.setattr(products, "BAND_BYTES", 26 * 6 * (8 * 3 * 8 + 16 * 4))
    np.testing.assert_allclose(winograd.convolve(weight, bias, x, AROUND), whole, atol=1e-6)
    assert products.band_rows(48, 3, 6 * (8 * 3 * 8 + 16 * 4), multiple=2) == 24


def test_bands_have_even_rows() -> None:
    """Of 90 rows 30 would be the largest band that fits; 45 is odd."""
    assert products.band_rows(90, 3, products.BAND_BYTES // 50) == 45
    assert products.band_rows(90, 3, products.BAND_BYTES // 50, multiple=2) == 30


def test_error_in_bf16() -> None:
    """Three times that of rounding the result, at most: sums of inputs and of weights are rounded too."""
    weight, bias, x = (values.astype(jnp.bfloat16) for values in _drawn((6, 16, 16), 64, 64, 3))
    exact = _plain(*(values.astype(jnp.float32) for values in (weight, bias, x)), AROUND)
    got = winograd.convolve(weight, bias.astype(jnp.float32), x, AROUND)
    assert got.dtype == jnp.bfloat16

    def error(values: Array) -> float:
        return float(jnp.sqrt(jnp.mean((values.astype(jnp.float32) - exact) ** 2)))

    assert error(got) < 3 * error(exact.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("shape", "pixels", "pays"),
    [
        ((3, 3, 3, 128, 64), 10**4, True),
        ((1, 3, 3, 64, 128), 10**5, True),
        ((3, 3, 3, 128, 64), 9000, False),
        ((3, 3, 3, 128, 48), 10**6, False),
        ((3, 3, 3, 48, 128), 10**6, False),
        ((3, 1, 1, 128, 128), 10**6, False),
        ((3, 3, 1, 128, 128), 10**6, False),
    ],
    ids=str,
)
def test_pays_where_products_are_large(shape: tuple[int, ...], pixels: int, pays: bool) -> None:
    """Few channels in or out, few pixels, or other taps are left to others."""
    assert winograd.pays(jax.ShapeDtypeStruct(shape, jnp.float32), pixels) is pays  # type: ignore[arg-type]


def test_takes_16_products_for_36() -> None:
    """XLA multiplies four ninths of what taps would."""
    weight, bias, x = _drawn((3, 8, 8), 64, 64, 3)
    program = jax.jit(lambda *given: winograd.convolve(*given, AROUND)).lower(weight, bias, x).compile()
    taps = 2 * 8 * 8 * 27 * 64 * 64
    assert taps * 4 / 9 <= program.cost_analysis()["flops"] < taps * 0.6  # type: ignore[index]


def test_compiled_loop_moves_bits() -> None:
    """XLA:CPU would widen bf16 that a loop collects or reads: all frames of it, for every frame."""
    weight, bias, x = (values.astype(jnp.bfloat16) for values in _drawn((9, 6, 6), 64, 64, 3))
    program = jax.jit(lambda *given: winograd.convolve(*given, AROUND))
    text = program.lower(weight, bias, x).compile(dict(target("cpu").flags("video_decoder"))).as_text()
    moved = re.findall(r"= (\w+)\[[\d,]*\]\S* dynamic-(?:update-)?slice\(", text)
    assert "u16" in moved
    assert not {"bf16", "f32"} & set(moved)
