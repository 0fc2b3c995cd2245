"""Convolutions in channels-last form: parameter specs and the functions that use them.

Kernels are stored spatial-first, `[kh, kw, in, out]` and `[kt, kh, kw, in, out]`, which is what the
compilers want to read; the checkpoint has `[out, in, (kt,) kh, kw]`. A result is accumulated over all taps
and channels in f32, the bias is added in f32, and the sum is rounded once to the dtype of the input.

    conv2d(name, key, out_channels, in_channels, kernel=(3, 3), bias=True) -> ParamTable
    conv3d(name, key, out_channels, in_channels, kernel=(3, 3, 3), bias=True) -> ParamTable
    convolve2d(params, x [N, H, W, in], padding=((1, 1), (1, 1))) -> [N, H', W', out]
    convolve3d(params, x [T + kt - 1, H, W, in]) -> [T, H, W, out]
    replicate_frames(x [T, H, W, C], before, after) -> [before + T + after, H, W, C]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ltxbuild.model.params import Layout, ParamSpec, ParamTable, vector

Params = Mapping[str, Any]
Padding2d = tuple[tuple[int, int], tuple[int, int]]


def conv2d(
    name: str,
    key: str,
    out_channels: int,
    in_channels: int,
    kernel: tuple[int, int] = (3, 3),
    *,
    bias: bool = True,
) -> ParamTable:
    """Specs of a 2-D convolution: `name.weight [kh, kw, in, out]` and `name.bias [out]`."""
    return _conv(name, key, out_channels, in_channels, kernel, bias)


def conv3d(
    name: str,
    key: str,
    out_channels: int,
    in_channels: int,
    kernel: tuple[int, int, int] = (3, 3, 3),
    *,
    bias: bool = True,
) -> ParamTable:
    """Specs of a 3-D convolution: `name.weight [kt, kh, kw, in, out]` and `name.bias [out]`."""
    return _conv(name, key, out_channels, in_channels, kernel, bias)


def _conv(
    name: str, key: str, out_channels: int, in_channels: int, kernel: tuple[int, ...], bias: bool
) -> ParamTable:
    source = (out_channels, in_channels, *kernel)
    layout = Layout(source, source, (*range(2, len(source)), 1, 0))
    shape = (*kernel, in_channels, out_channels)
    weight = ParamSpec(f"{name}.weight", shape, (None,) * len(shape), (f"{key}.weight",), layout)
    return (weight, *vector(f"{name}.bias", f"{key}.bias", out_channels)) if bias else (weight,)


def convolve2d(params: Params, x: Array, padding: Padding2d = ((1, 1), (1, 1))) -> Array:
    """Convolve images with stride 1.

    Args:
        params: `weight [kh, kw, in, out]` and perhaps `bias [out]`.
        x: `[N, H, W, in]`.
        padding: Zeros before and after, for height and width.

    Returns:
        `[N, H', W', out]` in the dtype of `x`.
    """
    return _finish(params, _taps2d(x, params["weight"], padding), x)


def convolve3d(params: Params, x: Array) -> Array:
    """Convolve a video with stride 1, zeros around each frame, no padding in time (the caller pads).

    Written as the sum over temporal taps of 2-D convolutions with the frames in the batch.

    Args:
        params: `weight [kt, kh, kw, in, out]` with odd kh and kw, and perhaps `bias [out]`.
        x: `[T + kt - 1, H, W, in]`.

    Returns:
        `[T, H, W, out]` in the dtype of `x`.
    """
    weight = params["weight"]
    taps, height, width = weight.shape[:3]
    frames = x.shape[0] - taps + 1
    padding = ((height // 2, height // 2), (width // 2, width // 2))
    total = _taps2d(x[:frames], weight[0], padding)
    for tap in range(1, taps):
        total = total + _taps2d(x[tap : tap + frames], weight[tap], padding)
    return _finish(params, total, x)


def replicate_frames(x: Array, before: int, after: int) -> Array:
    """Repeat the first frame `before` times in front and the last one `after` times behind `[T, H, W, C]`."""
    first = jnp.broadcast_to(x[:1], (before, *x.shape[1:]))
    last = jnp.broadcast_to(x[-1:], (after, *x.shape[1:]))
    return jnp.concatenate([first, x, last], axis=0)


def _taps2d(x: Array, weight: Array, padding: Padding2d) -> Array:
    return lax.conv_general_dilated(
        x,
        weight,
        window_strides=(1, 1),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=jnp.float32,
    )


def _finish(params: Params, total: Array, x: Array) -> Array:
    if "bias" in params:
        total = total + params["bias"].astype(jnp.float32)
    return total.astype(x.dtype)
