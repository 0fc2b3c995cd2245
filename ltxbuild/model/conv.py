"""Convolutions in channels-last form: parameter specs and the functions that use them.

Kernels are stored spatial-first, `[kh, kw, in, out]` and `[kt, kh, kw, in, out]`, which is what the
compilers want to read; the checkpoint has `[out, in, (kt,) kh, kw]`. A result is accumulated over all taps
and channels in f32, the bias is added in f32, and the sum is rounded once to the dtype of the input.

    conv2d(name, key, out_channels, in_channels, kernel=(3, 3), bias=True) -> ParamTable
    conv3d(name, key, out_channels, in_channels, kernel=(3, 3, 3), bias=True) -> ParamTable
    convolve2d(params, x [N, H, W, in], padding=((1, 1), (1, 1))) -> [N, H', W', out]
    convolve3d(params, x [T + kt - 1, H, W, in], form="taps") -> [T, H, W, out]
    replicate_frames(x [T, H, W, C], before, after) -> [before + T + after, H, W, C]
    depth_to_space(x [T, H, W, pt * ph * pw * C], (pt, ph, pw)) -> [T * pt, H * ph, W * pw, C]

A convolution that feeds a depth-to-space has its output channels split: `out_channels=(C, P)` says that the
checkpoint numbers them `c * P + p`. They are stored the other way round, `p * C + c`, so that the program
moves whole channel vectors instead of single values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ltxbuild.model import products, winograd
from ltxbuild.model.forms import Convolution
from ltxbuild.model.params import Layout, ParamSpec, ParamTable
from ltxbuild.model.products import Padding2d

Params = Mapping[str, Any]
Channels = int | tuple[int, ...]


def conv2d(
    name: str,
    key: str,
    out_channels: Channels,
    in_channels: int,
    kernel: tuple[int, int] = (3, 3),
    *,
    bias: bool = True,
) -> ParamTable:
    """Specs of a 2-D convolution: `name.weight [kh, kw, in, out]` and `name.bias [out]`.

    Args:
        name: Our name.
        key: Checkpoint key without `.weight` and `.bias`.
        out_channels: A count, or the factors `(slowest, ..., fastest)` of the checkpoint's numbering; our
            `out` is then several axes, in reverse order.
        in_channels: Input channels.
        kernel: Kernel size.
        bias: Whether there is a bias.
    """
    return _conv(name, key, out_channels, in_channels, kernel, bias)


def conv3d(
    name: str,
    key: str,
    out_channels: Channels,
    in_channels: int,
    kernel: tuple[int, int, int] = (3, 3, 3),
    *,
    bias: bool = True,
) -> ParamTable:
    """Specs of a 3-D convolution: `name.weight [kt, kh, kw, in, out]` and `name.bias [out]`; see `conv2d`."""
    return _conv(name, key, out_channels, in_channels, kernel, bias)


def _conv(
    name: str, key: str, out_channels: Channels, in_channels: int, kernel: tuple[int, ...], bias: bool
) -> ParamTable:
    split = (out_channels,) if isinstance(out_channels, int) else out_channels
    taps, outs = len(kernel), len(split)
    layout = Layout(
        (math.prod(split), in_channels, *kernel),
        (*split, in_channels, *kernel),
        (*range(outs + 1, outs + 1 + taps), outs, *reversed(range(outs))),
    )
    shape = (*kernel, in_channels, *reversed(split))
    weight = ParamSpec(f"{name}.weight", shape, (None,) * len(shape), (f"{key}.weight",), layout)
    return (weight, _bias(name, key, split)) if bias else (weight,)


def _bias(name: str, key: str, split: tuple[int, ...]) -> ParamSpec:
    outs = len(split)
    layout = None if outs == 1 else Layout((math.prod(split),), split, (*reversed(range(outs)),))
    return ParamSpec(f"{name}.bias", (*reversed(split),), (None,) * outs, (f"{key}.bias",), layout)


def convolve2d(
    params: Params, x: Array, padding: Padding2d = ((1, 1), (1, 1)), form: Convolution = "taps"
) -> Array:
    """Convolve images with stride 1.

    Args:
        params: `weight [kh, kw, in, out]` and perhaps `bias [out]`.
        x: `[N, H, W, in]`.
        padding: Zeros before and after, for height and width.
        form: `products`, or anything else for the platform's convolution; see `convolve3d`.

    Returns:
        `[N, H', W', out]` in the dtype of `x`.
    """
    weight = params["weight"].reshape(*params["weight"].shape[:3], -1)
    if form == "products":
        return products.convolve(weight[None], _bias_of(params), x, padding)
    return _finish(params, _tap(x, weight, padding), x)


def convolve3d(params: Params, x: Array, form: Convolution = "taps") -> Array:
    """Convolve a video with stride 1, zeros around each frame, no padding in time (the caller pads).

    Args:
        params: `weight [kt, kh, kw, in, out]` with odd kh and kw, and perhaps `bias [out]`.
        x: `[T + kt - 1, H, W, in]`.
        form: `taps` is the sum over temporal taps of 2-D convolutions with the frames in the batch, twice as
            fast as `direct`, one 3-D convolution, on a CPU; for TPU that compiles in a sixth of the time.
            `products` is a matrix product per frame or band of rows, see `model.products`; `winograd` is that
            with fewer multiplications where it pays, see `model.winograd`.

    Returns:
        `[T, H, W, out]` in the dtype of `x`.
    """
    taps, height, width, channels = params["weight"].shape[:4]
    weight = params["weight"].reshape(taps, height, width, channels, -1)
    padding = ((height // 2, height // 2), (width // 2, width // 2))
    if form == "direct":
        return _finish(params, _whole(x, weight, padding), x)
    if form == "winograd" and winograd.pays(weight, math.prod(x.shape[:3])):
        return winograd.convolve(weight, _bias_of(params), x, padding)
    if form in ("products", "winograd"):
        return products.convolve(weight, _bias_of(params), x, padding)
    frames = x.shape[0] - taps + 1
    total = _tap(x[:frames], weight[0], padding)
    for tap in range(1, taps):
        total = total + _tap(x[tap : tap + frames], weight[tap], padding)
    return _finish(params, total, x)


def _tap(x: Array, weight: Array, padding: Padding2d) -> Array:
    return lax.conv_general_dilated(
        x,
        weight,
        window_strides=(1, 1),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=jnp.float32,
    )


def _whole(x: Array, weight: Array, padding: Padding2d) -> Array:
    return lax.conv_general_dilated(
        x[None],
        weight,
        window_strides=(1, 1, 1),
        padding=((0, 0), *padding),
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        preferred_element_type=jnp.float32,
    )[0]


def _finish(params: Params, total: Array, x: Array) -> Array:
    return (total + _bias_of(params)).astype(x.dtype)


def _bias_of(params: Params) -> Array:
    bias: Array | None = params.get("bias")
    return jnp.zeros((), jnp.float32) if bias is None else bias.reshape(-1).astype(jnp.float32)


def replicate_frames(x: Array, before: int, after: int) -> Array:
    """Repeat the first frame `before` times in front and the last one `after` times behind `[T, H, W, C]`."""
    first = jnp.broadcast_to(x[:1], (before, *x.shape[1:]))
    last = jnp.broadcast_to(x[-1:], (after, *x.shape[1:]))
    return jnp.concatenate([first, x, last], axis=0)


def depth_to_space(x: Array, stride: tuple[int, int, int]) -> Array:
    """Spread channels over a block of frames, rows and columns.

    Args:
        x: `[T, H, W, pt * ph * pw * C]`, channels numbered `((a * ph + b) * pw + d) * C + c`, as a
            convolution with split output channels gives them.
        stride: `(pt, ph, pw)`.

    Returns:
        `[T * pt, H * ph, W * pw, C]`.
    """
    frames, height, width, _ = x.shape
    blocks = x.reshape(frames, height, width, *stride, -1).transpose(0, 3, 1, 4, 2, 5, 6)
    return blocks.reshape(frames * stride[0], height * stride[1], width * stride[2], -1)
