"""What the video encoder and the video decoder share: latent statistics, activation and residual stages.

Inside, a video is `[T, H, W, C]`: frames are the batch of the 2-D convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from ltxbuild.model.conv import conv3d, convolve3d, replicate_frames
from ltxbuild.model.forms import Convolution
from ltxbuild.model.layers import pixel_norm, run_layers, silu
from ltxbuild.model.params import ParamTable, prefixed, stack, vector

Params = Mapping[str, Any]
TimePadding = tuple[int, int]
"""How often the first and the last frame are repeated before a convolution."""
Convolve = Callable[[Params, Array], Array]
"""`convolve` with padding and form chosen."""

CAUSAL: TimePadding = (2, 0)
CENTRED: TimePadding = (1, 1)
NORM_EPS = 1e-8


def statistics(channels: int) -> ParamTable:
    """Specs of the per-channel mean and deviation of the latents: `statistics.mean`, `statistics.std`."""
    key = "vae.per_channel_statistics"
    return (
        *vector("statistics.mean", f"{key}.mean-of-means", channels),
        *vector("statistics.std", f"{key}.std-of-means", channels),
    )


def normalize(params: Params, x: Array) -> Array:
    """Raw latents `[..., C]` to the space of the transformer; `params` holds `mean` and `std`."""
    mean: Array = params["mean"].astype(x.dtype)
    std: Array = params["std"].astype(x.dtype)
    return (x - mean) / std


def denormalize(params: Params, x: Array) -> Array:
    """The inverse of `normalize`."""
    mean: Array = params["mean"].astype(x.dtype)
    std: Array = params["std"].astype(x.dtype)
    return x * std + mean


def to_video(x: Array) -> Array:
    """`[1, C, T, H, W]` to `[T, H, W, C]`.

    Raises:
        ValueError: The batch is not 1.
    """
    return jnp.moveaxis(jnp.squeeze(x, 0), 0, -1)


def from_video(x: Array) -> Array:
    """`[T, H, W, C]` to `[1, C, T, H, W]`."""
    return jnp.moveaxis(x, -1, 0)[None]


def activate(x: Array) -> Array:
    """Pixel norm, then SiLU."""
    return silu(pixel_norm(x, NORM_EPS))


def convolve(params: Params, x: Array, *, padding: TimePadding, form: Convolution) -> Array:
    """3x3x3 convolution `[T, H, W, in]` to `[T, H, W, out]`: end frames repeated, zeros around each frame."""
    return convolve3d(params, replicate_frames(x, *padding), form)


def residual_stage(name: str, key: str, layers: int, channels: int) -> ParamTable:
    """Specs of a `res_x` block: `name.blocks`, with `conv1` and `conv2` stacked over its residual layers."""
    tables = []
    for layer in range(layers):
        convs = [
            conv3d(conv, f"{key}.res_blocks.{layer}.{conv}.conv", channels, channels)
            for conv in ("conv1", "conv2")
        ]
        tables.append(convs[0] + convs[1])
    return prefixed(f"{name}.blocks", stack(tables))


def run_residual_stage(params: Params, x: Array, convolve: Convolve) -> Array:
    """Residual layers `x + conv2(act(conv1(act(x))))` on `[T, H, W, C]`."""

    def layer(x: Array, params: Params) -> Array:
        inner = convolve(params["conv1"], activate(x))
        return x + convolve(params["conv2"], activate(inner))

    return run_layers(layer, x, params["blocks"])
