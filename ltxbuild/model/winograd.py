"""Convolutions with 3 x 3 taps by Winograd's minimal filtering, F(2 x 2, 3 x 3): 16 products for 36.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015). Along one axis two results of
three taps `g` need four inputs `d` and four products:

    m0 = (d0 - d2) g0                  y0 = m0 + m1 + m2
    m1 = (d1 + d2) (g0 + g1 + g2) / 2  y1 = m1 - m2 - m3
    m2 = (d2 - d1) (g0 - g1 + g2) / 2
    m3 = (d1 - d3) g2

and the same is done along the other one. A product is one matrix product over all channels, of the frame and
its neighbours in time. In bf16 the sums of inputs and of weights are rounded once more, which makes a
result's error 2.5 times that of its own rounding; in f32 it stays below 1e-6.

    pays(weight [kt, kh, kw, in, out], pixels) -> bool
    convolve(weight [kt, 3, 3, in, out], bias [out], x [T + kt - 1, H, W, in], padding) -> [T, H', W', out]
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from ltxbuild.model.loops import apart, bits
from ltxbuild.model.products import Padding2d, band_rows, over_bands, product

TAPS = 3
CELLS = 4
"""Inputs, and products, along an axis for two results."""
FEW_CHANNELS = 64
"""With fewer, in or out, the sums cost more than the products that they save."""
FEW_OPERATIONS = 4 * 10**9
"""With fewer, the code of 16 products takes longer to be made ready than it saves in a call."""


def pays(weight: Array, pixels: int) -> bool:
    """Whether weights `[kt, kh, kw, in, out]` are better applied to so many pixels so than tap by tap."""
    own = weight.shape[1:3] == (TAPS, TAPS) and min(weight.shape[3:]) >= FEW_CHANNELS
    return own and 2 * weight.size * pixels >= FEW_OPERATIONS


def convolve(weight: Array, bias: Array, x: Array, padding: Padding2d) -> Array:
    """Convolve with stride 1, without padding in time.

    Args:
        weight: `[kt, 3, 3, in, out]`.
        bias: `[out]`, f32; or zero.
        x: `[T + kt - 1, H, W, in]`.
        padding: Zeros before and after, for height and width.

    Returns:
        `[T, H', W', out]` in the dtype of `x`.
    """
    depth, _, _, channels, outputs = weight.shape
    rows, columns = (size + sum(pad) - TAPS + 1 for size, pad in zip(x.shape[1:3], padding, strict=True))
    tall, wide = rows + rows % 2, columns + columns % 2
    (top, bottom), (left, right) = padding
    sides = ((0, 0), (top, bottom + tall - rows), (left, right + wide - columns), (0, 0))
    padded = jnp.pad(bits(x), sides)
    filters = [[_filter(weight, i, j) for j in range(CELLS)] for i in range(CELLS)]
    band = band_rows(tall, TAPS, wide * (8 * depth * channels + 16 * outputs), multiple=2)

    def one(pixels: Array) -> Array:
        cells = pixels.reshape(band // 2 + 1, 2, wide // 2 + 1, 2, -1)
        products = [_product(cells, filters[i][j], i, j) for i in range(CELLS) for j in range(CELLS)]
        return _together(apart(partial(_results, dtype=x.dtype), bias, *products))

    return over_bands(one, padded, tall, band, (depth, TAPS))[:, :rows, :columns]


def _filter(weight: Array, i: int, j: int) -> Array:
    """Cell (i, j) of the transformed weights, `[kt * in, out]`."""

    def summed(weight: Array) -> Array:
        cell = _of_taps(_of_taps(weight.astype(jnp.float32), i), j)
        return cell.astype(weight.dtype)

    return apart(summed, weight).reshape(-1, weight.shape[-1])


def _of_taps(g: Array, cell: int) -> Array:
    """One of the four sums over the three taps of axis 1, which goes."""
    g0, g1, g2 = (g[:, tap] for tap in range(TAPS))
    return (g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2)[cell]


def _product(cells: Array, weight: Array, i: int, j: int) -> Array:
    """Cell (i, j) of inputs `[h + 1, 2, w + 1, 2, kt * in]` times that of the weights: `[h, w, out]`."""

    def summed(cells: Array) -> Array:
        wide = cells.astype(jnp.float32)
        even, odd = (_of_inputs(wide[:, 0, :, side], wide[:, 1, :, side], i, axis=0) for side in range(2))
        return _of_inputs(even, odd, j, axis=1).astype(cells.dtype)

    inputs = apart(summed, cells)
    return product(inputs, weight).reshape(*inputs.shape[:2], -1)


def _of_inputs(even: Array, odd: Array, cell: int, axis: int) -> Array:
    """One of the four sums over the inputs of each pair of results, given even and odd places of an axis."""
    last = even.shape[axis] - 1
    d0, d1 = (lax.slice_in_dim(inputs, 0, last, axis=axis) for inputs in (even, odd))
    d2, d3 = (lax.slice_in_dim(inputs, 1, last + 1, axis=axis) for inputs in (even, odd))
    return (d0 - d2, d1 + d2, d2 - d1, d1 - d3)[cell]


def _results(bias: Array, *products: Array, dtype: jnp.dtype) -> list[list[Array]]:
    """Bits of the results in even and odd rows and columns, each `[h, w, out]`, of the 16 products."""
    rows = [_of_products(products[j::CELLS]) for j in range(CELLS)]
    pairs = [_of_products([row[side] for row in rows]) for side in range(2)]
    return [[bits((result + bias).astype(dtype)) for result in pair] for pair in pairs]


def _of_products(m: Sequence[Array]) -> tuple[Array, Array]:
    """The two results of four products."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _together(results: list[list[Array]]) -> Array:
    """`[2 h, 2 w, out]` of even and odd rows and columns."""
    stacked = jnp.stack([jnp.stack(pair, axis=2) for pair in results], axis=1)
    height, _, width, _, outputs = stacked.shape
    return stacked.reshape(2 * height, 2 * width, outputs)
