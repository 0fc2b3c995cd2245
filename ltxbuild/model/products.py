"""Convolutions as matrix products, for CPUs: XLA:CPU multiplies bf16 as it is, but widens what it convolves.

The pixels of a frame, with those of its neighbours in time as further channels, are multiplied with the
weights of all spatial taps beside each other; then the results of the taps are shifted and summed.

What decides how fast that is (docs/performance.md has the figures): products stay in the caches, as frames
are cut into bands of rows; bf16 is moved as bits, see `model.loops`; and sums are apart from the write of a
loop's result, which is done by one thread.

    convolve(weight [kt, kh, kw, in, out], bias [out], x [T + kt - 1, H, W, in], padding) -> [T, H', W', out]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from ltxbuild.model.forms import BAND_BYTES
from ltxbuild.model.loops import apart, bits, collect, floats

Padding2d = tuple[tuple[int, int], tuple[int, int]]
FEW_ROWS = 24
"""Bands have at least so many rows: the taps reach beyond a band, and what they reach is multiplied twice."""


def convolve(weight: Array, bias: Array, x: Array, padding: Padding2d) -> Array:
    """Convolve with stride 1, without padding in time.

    Args:
        weight: `[kt, kh, kw, in, out]`.
        bias: `[out]`, f32; or zero.
        x: `[T + kt - 1, H, W, in]`.
        padding: Zeros before and after, for height and width.

    Returns:
        `[T, H', W', out]`: summed in f32, then rounded to the dtype of `x`.
    """
    depth, height, width, channels, outputs = weight.shape
    (top, bottom), (left, right) = padding
    columns, rows = x.shape[2], x.shape[1] + top + bottom - height + 1
    band = band_rows(rows, height, 4 * columns * height * width * outputs)
    padded = jnp.pad(bits(x), ((0, 0), (top, bottom), (0, 0), (0, 0)))
    matrix = weight.transpose(0, 3, 1, 2, 4).reshape(depth * channels, -1)

    def one(pixels: Array) -> Array:
        taps = product(pixels, matrix).reshape(-1, columns, height, width, outputs)
        return apart(partial(_summed, dtype=x.dtype, sides=(left, right)), taps, bias)

    return over_bands(one, padded, rows, band, (depth, height))


def band_rows(rows: int, height: int, row_bytes: int, multiple: int = 1) -> int:
    """Rows of a band: as many as fit, in bands of equal size; all of them if those would be few.

    Args:
        rows: Of a frame.
        height: Taps along them.
        row_bytes: What a row and a row of taps beyond it needs.
        multiple: What the number is a multiple of, as `rows` is.
    """
    fit = [count for count in range(FEW_ROWS, rows, multiple) if rows % count == 0]
    return max((count for count in fit if (count + height - 1) * row_bytes <= BAND_BYTES), default=rows)


def over_bands(
    function: Callable[[Array], Array],
    padded: Array,
    rows: int,
    band: int,
    taps: tuple[int, int],
) -> Array:
    """Collect what a function makes of each band of rows of each frame.

    Args:
        function: Given `[band + kh - 1, W, kt * in]`, the pixels that a band's taps reach with those of the
            frame's neighbours in time as further channels, makes `[band, W', out]` or its bits.
        padded: Bits of the frames with what is around them, `[T + kt - 1, rows + kh - 1, W, in]`.
        rows: Of a result.
        band: Rows of a band.
        taps: `(kt, kh)`.

    Returns:
        `[T, rows, W', out]`.
    """
    depth, height = taps
    frames, bands = padded.shape[0] - depth + 1, rows // band

    def one(index: Array) -> Array:
        start = (index // bands, index % bands * band, 0, 0)
        near = lax.dynamic_slice(padded, start, (depth, band + height - 1, *padded.shape[2:]))
        return function(floats(jnp.concatenate(list(near), axis=-1)))

    made = collect(one, jnp.arange(frames * bands))
    return made.reshape(frames, rows, *made.shape[2:])


def product(pixels: Array, matrix: Array) -> Array:
    """Matrix product of pixels `[..., in]`, in any shape, with `[in, out]`: `[pixels, out]`, f32."""
    result: Array = lax.dot_general(
        pixels.reshape(-1, pixels.shape[-1]),
        matrix,
        (((1,), (0,)), ((), ())),
        preferred_element_type=jnp.float32,
    )
    return result


def _summed(taps: Array, bias: Array, dtype: jnp.dtype, sides: tuple[int, int]) -> Array:
    """Bits of the results `[R, W', out]` of `[R + kh - 1, W, kh, kw, out]`."""
    _, _, height, width, _ = taps.shape
    rows = taps.shape[0] - height + 1
    left, right = sides
    total = jnp.zeros((), jnp.float32)
    for i in range(height):
        for j in range(width):
            shift = ((0, 0, 0), (left - j, right - (width - 1 - j), 0), (0, 0, 0))
            total = total + lax.pad(taps[i : i + rows, :, i, j], jnp.zeros((), jnp.float32), shift)
    return bits((total + bias).astype(dtype))
