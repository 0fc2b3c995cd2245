"""The latent upsampler between the two denoising stages: x2 or x1.5 in space, or x2 in time.

A convolution makes a multiple of the channels, which are spread over space or time. For x1.5 that is three
times the size, and every second row and column of the blurred result is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ltxbuild.model.config import UpsamplerConfig
from ltxbuild.model.conv import conv2d, conv3d, convolve2d, convolve3d, depth_to_space
from ltxbuild.model.forms import Convolution
from ltxbuild.model.layers import run_layers, silu
from ltxbuild.model.params import Layout, ParamSpec, ParamTable, prefixed, stack, vector
from ltxbuild.model.video_vae import Convolve, denormalize, from_video, normalize, statistics, to_video

Params = Mapping[str, Any]

GROUPS = 32
NORM_EPS = 1e-5
SPREAD = {"spatial_x2": (1, 2, 2), "spatial_x1.5": (1, 3, 3), "temporal_x2": (2, 1, 1)}
"""Per kind, over how many frames, rows and columns the channels are spread."""
BLUR = 5
"""Rows and columns of the blur."""
KEEP_EVERY = 2
"""Rows and columns from one that is kept after the blur to the next."""


def params(config: UpsamplerConfig) -> ParamTable:
    """Parameters of the upsampler, and the latent statistics from the video VAE's file."""
    latent, width = config.in_channels, config.mid_channels
    return (
        *statistics(latent),
        *conv3d("conv_in", "initial_conv", width, latent),
        *_norm("norm_in", "initial_norm", width),
        *_residual_stage("before", "res_blocks", config.num_blocks_per_stage, width),
        *_resampler(config),
        *_residual_stage("after", "post_upsample_res_blocks", config.num_blocks_per_stage, width),
        *conv3d("conv_out", "final_conv", latent, width),
    )


def _resampler(config: UpsamplerConfig) -> ParamTable:
    width = config.mid_channels
    split = (width, math.prod(SPREAD[config.kind]))
    if config.kind == "temporal_x2":
        return conv3d("upsample", "upsampler.0", split, width)
    if not config.rational_resampler:
        return conv2d("upsample", "upsampler.0", split, width)
    # A rational x2 resampler has a blur in its file and doesn't use it.
    layout = Layout((1, 1, BLUR, BLUR), (BLUR, BLUR), (0, 1))
    blur = ParamSpec("blur", (BLUR, BLUR), (None, None), ("upsampler.blur_down.kernel",), layout)
    return (*conv2d("upsample", "upsampler.conv", split, width), blur)


def _norm(name: str, key: str, channels: int) -> ParamTable:
    return (
        *vector(f"{name}.weight", f"{key}.weight", channels),
        *vector(f"{name}.bias", f"{key}.bias", channels),
    )


def _residual_stage(name: str, key: str, layers: int, channels: int) -> ParamTable:
    tables = [
        (
            *conv3d("conv1", f"{key}.{layer}.conv1", channels, channels),
            *_norm("norm1", f"{key}.{layer}.norm1", channels),
            *conv3d("conv2", f"{key}.{layer}.conv2", channels, channels),
            *_norm("norm2", f"{key}.{layer}.norm2", channels),
        )
        for layer in range(layers)
    ]
    return prefixed(f"{name}.blocks", stack(tables))


def upsample(params: Params, latent: Array, config: UpsamplerConfig, form: Convolution = "taps") -> Array:
    """Upsample a normalised latent.

    Args:
        params: Tree of `params(config)`.
        latent: `[1, C, F, h, w]`, normalised.
        config: Sizes.
        form: Of the convolutions, see `conv.convolve3d`.

    Returns:
        `[1, C, F, 2h, 2w]`, `[1, C, F, 3h/2, 3w/2]` or `[1, C, 2F - 1, h, w]`, normalised, in the dtype of
        `latent`.

    Raises:
        ValueError: The batch is not 1.
    """
    x = denormalize(params["statistics"], to_video(latent))
    conv = partial(_convolve, form=form)
    residual = partial(_residual, conv=conv)
    x = silu(_group_norm(params["norm_in"], conv(params["conv_in"], x)))
    x = run_layers(residual, x, params["before"]["blocks"])
    x = _resample(params, x, config, form)
    x = run_layers(residual, x, params["after"]["blocks"])
    return from_video(normalize(params["statistics"], conv(params["conv_out"], x)))


def _resample(params: Params, x: Array, config: UpsamplerConfig, form: Convolution) -> Array:
    spread = SPREAD[config.kind]
    if config.kind == "temporal_x2":
        # A latent frame stands for eight frames, the first one for a single frame.
        return depth_to_space(_convolve(params["upsample"], x, form=form), spread)[1:]
    x = depth_to_space(convolve2d(params["upsample"], x, form=form), spread)
    return _blur(params["blur"], x) if config.kind == "spatial_x1.5" else x


def _blur(kernel: Array, x: Array) -> Array:
    """Blur `[T, H, W, C]` with `kernel [5, 5]`, zeros around it, and keep every second row and column.

    Written as a sum of slices, which compilers fuse into one pass; a convolution per channel is slow.
    """
    _, height, width, _ = x.shape
    side = ((BLUR // 2, BLUR // 2),) * 2
    padded = jnp.pad(x, ((0, 0), *side, (0, 0)))
    total = sum(
        kernel[row, column].astype(jnp.float32)
        * padded[:, row : row + height : KEEP_EVERY, column : column + width : KEEP_EVERY].astype(jnp.float32)
        for row in range(BLUR)
        for column in range(BLUR)
    )
    return jnp.asarray(total, x.dtype)


def _residual(x: Array, params: Params, conv: Convolve) -> Array:
    inner = silu(_group_norm(params["norm1"], conv(params["conv1"], x)))
    return silu(x + _group_norm(params["norm2"], conv(params["conv2"], inner)))


def _convolve(params: Params, x: Array, *, form: Convolution) -> Array:
    """3x3x3 convolution of `[T, H, W, C]` with zeros around it in time and space."""
    return convolve3d(params, jnp.pad(x, ((1, 1), (0, 0), (0, 0), (0, 0))), form)


def _group_norm(params: Params, x: Array) -> Array:
    """Normalise `[T, H, W, C]` per group of channels over the whole video; f32 inside, one cast."""
    grouped = x.astype(jnp.float32).reshape(*x.shape[:3], GROUPS, -1)
    centred = grouped - jnp.mean(grouped, axis=(0, 1, 2, 4), keepdims=True)
    variance = jnp.mean(centred * centred, axis=(0, 1, 2, 4), keepdims=True)
    scaled = (centred * lax.rsqrt(variance + NORM_EPS)).reshape(x.shape)
    weight: Array = params["weight"].astype(jnp.float32)
    bias: Array = params["bias"].astype(jnp.float32)
    return (scaled * weight + bias).astype(x.dtype)
