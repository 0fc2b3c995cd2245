"""One-dimensional convolutions over `[T, C]` signals, in f32 whatever the platform's default.

    conv1d(name, key, out_channels, in_channels, taps, bias=True) -> ParamTable
    transposed1d(name, key, out_channels, in_channels, taps) -> ParamTable
    convolve1d(weight [k, in, out], x [T, in], dilation=1, form="taps") -> [T, out]
    convolve1d_of(weight, x, dilations, choice, form="taps") -> [T, out]
    transpose_convolve1d(params, x [T, in], stride) -> [T * stride, out]
    replicate(x [..., T, C], before, after) -> [..., before + T + after, C]
    materialized(value) -> value

Every product asks for the highest precision: accelerators would otherwise multiply f32 in bf16 or TF32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import jax.numpy as jnp
from jax import Array, lax

from ltxbuild.model.forms import Convolution
from ltxbuild.model.params import Layout, ParamSpec, ParamTable

Params = Mapping[str, Any]
T = TypeVar("T")
EXACT = lax.Precision.HIGHEST


def conv1d(
    name: str, key: str, out_channels: int, in_channels: int, taps: int, *, bias: bool = True
) -> ParamTable:
    """Specs of a convolution: `name.weight [k, in, out]` (from `[out, in, k]`) and `name.bias [out]`."""
    source = (out_channels, in_channels, taps)
    weight = _kernel(name, key, Layout(source, source, (2, 1, 0)))
    return (weight, bias1d(name, key, out_channels)) if bias else (weight,)


def transposed1d(name: str, key: str, out_channels: int, in_channels: int, taps: int) -> ParamTable:
    """Specs of a transposed convolution: `name.weight [in, k, out]` (from `[in, out, k]`) and `name.bias`."""
    source = (in_channels, out_channels, taps)
    return _kernel(name, key, Layout(source, source, (0, 2, 1))), bias1d(name, key, out_channels)


def bias1d(name: str, key: str, channels: int) -> ParamSpec:
    """Spec of `name.bias [channels]`."""
    return ParamSpec(f"{name}.bias", (channels,), (None,), (f"{key}.bias",), storage="float32")


def _kernel(name: str, key: str, layout: Layout) -> ParamSpec:
    shape = tuple(layout.view[axis] for axis in layout.permute)
    return ParamSpec(f"{name}.weight", shape, (None,) * 3, (f"{key}.weight",), layout, "float32")


def convolve1d(weight: Array, x: Array, dilation: int = 1, form: Convolution = "taps") -> Array:
    """Convolve with an odd number of taps and zeros around, so that the length stays.

    Args:
        weight: `[k, in, out]`.
        x: `[T, in]`.
        dilation: Distance between taps in samples.
        form: `loop` adds up the taps in a loop; anything else is the platform's convolution.

    Returns:
        `[T, out]`.
    """
    if form == "loop":
        return _in_loop(weight, x, dilation, dilation)
    reach = dilation * (weight.shape[0] - 1) // 2
    # As an image of height one: XLA:CPU is up to 1.7 times faster with it than with its 1-D convolution.
    y = lax.conv_general_dilated(
        x[None, None],
        weight[None],
        window_strides=(1, 1),
        padding=((0, 0), (reach, reach)),
        rhs_dilation=(1, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=EXACT,
    )
    return y[0, 0]


def convolve1d_of(
    weight: Array, x: Array, dilations: Sequence[int], choice: Array, form: Convolution = "taps"
) -> Array:
    """Convolve as `convolve1d` does, with a dilation that is data.

    Args:
        weight: `[k, in, out]`.
        x: `[T, in]`.
        dilations: Those that there are.
        choice: Number of the one to take, a scalar.
        form: `loop` makes one small program for all of them; anything else a convolution for each.

    Returns:
        `[T, out]`.
    """
    if form == "loop":
        return _in_loop(weight, x, jnp.array(dilations)[choice], max(dilations))
    ways = [partial(convolve1d, dilation=dilation) for dilation in dilations]
    result: Array = lax.switch(choice, ways, weight, x)
    return result


def _in_loop(weight: Array, x: Array, dilation: Array | int, widest: int) -> Array:
    """The sum over the taps of matmuls on shifted signals, with a dilation of at most `widest`."""
    taps, _, outputs = weight.shape
    half = (taps - 1) // 2
    padded = jnp.pad(x, ((widest * half, widest * half), (0, 0)))

    def add_tap(tap: Array, total: Array) -> Array:
        start = widest * half + (tap - half) * dilation
        shifted = lax.dynamic_slice_in_dim(padded, start, x.shape[0])
        product: Array = jnp.matmul(shifted, weight[tap], precision=EXACT)
        return total + product

    signal: Array = lax.fori_loop(0, taps, add_tap, jnp.zeros((x.shape[0], outputs), x.dtype))
    return signal


def transpose_convolve1d(params: Params, x: Array, stride: int) -> Array:
    """Upsample by a transposed convolution that drops `(k - stride) // 2` samples at both ends.

    One matmul gives every input sample its k output samples; what overlaps is added up. No work is spent
    on the zeros that a convolution over a dilated input would multiply.

    Args:
        params: `weight [in, k, out]` and `bias [out]`.
        x: `[T, in]`.
        stride: Output samples per input sample.

    Returns:
        `[T * stride, out]`; one sample more where `k - stride` is odd.
    """
    length = x.shape[0]
    _, taps, channels = params["weight"].shape
    spread = lax.dot_general(x, params["weight"], (((1,), (0,)), ((), ())), precision=EXACT)
    pieces = -(-taps // stride)
    spread = jnp.pad(spread, ((0, 0), (0, pieces * stride - taps), (0, 0)))
    total = jnp.zeros((length + pieces - 1, stride, channels), x.dtype)
    for piece in range(pieces):
        part = spread[:, piece * stride : (piece + 1) * stride]
        total = total + jnp.pad(part, ((piece, pieces - 1 - piece), (0, 0), (0, 0)))
    start = (taps - stride) // 2
    bias: Array = params["bias"]
    stop = (length - 1) * stride + taps - start
    return total.reshape(-1, channels)[start:stop] + bias


def replicate(x: Array, before: int, after: int) -> Array:
    """Repeat the first sample of `[..., T, C]` `before` times, and the last one `after` times behind."""
    first = jnp.broadcast_to(x[..., :1, :], (*x.shape[:-2], before, x.shape[-1]))
    last = jnp.broadcast_to(x[..., -1:, :], (*x.shape[:-2], after, x.shape[-1]))
    return jnp.concatenate([first, x, last], axis=-2)


def materialized(value: T) -> T:
    """The same arrays, which the compiler may neither take apart nor fuse with what reads them."""
    kept: T = lax.optimization_barrier(value)  # type: ignore[no-untyped-call]
    return kept
