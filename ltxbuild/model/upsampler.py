"""The latent upsampler: twice the height and width between the two denoising stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ltxbuild.model.config import UpsamplerConfig
from ltxbuild.model.conv import conv2d, conv3d, convolve2d, convolve3d, depth_to_space
from ltxbuild.model.layers import run_layers, silu
from ltxbuild.model.params import ParamTable, prefixed, stack, vector
from ltxbuild.model.video_vae import denormalize, from_video, normalize, statistics, to_video

Params = Mapping[str, Any]

GROUPS = 32
NORM_EPS = 1e-5
SPATIAL = (1, 2, 2)


def params(config: UpsamplerConfig) -> ParamTable:
    """Parameters of the upsampler, and the latent statistics from the video VAE's file.

    Raises:
        ValueError: The file is another kind of upsampler than spatial x2.
    """
    _check(config)
    latent, width = config.in_channels, config.mid_channels
    return (
        *statistics(latent),
        *conv3d("conv_in", "initial_conv", width, latent),
        *_norm("norm_in", "initial_norm", width),
        *_residual_stage("before", "res_blocks", config.num_blocks_per_stage, width),
        *conv2d("upsample", "upsampler.0", (width, SPATIAL[1] * SPATIAL[2]), width),
        *_residual_stage("after", "post_upsample_res_blocks", config.num_blocks_per_stage, width),
        *conv3d("conv_out", "final_conv", latent, width),
    )


def _check(config: UpsamplerConfig) -> None:
    for field, value, supported in (
        ("spatial_upsample", config.spatial_upsample, True),
        ("temporal_upsample", config.temporal_upsample, False),
        ("rational_resampler", config.rational_resampler, False),
        ("spatial_scale", config.spatial_scale, 2.0),
    ):
        if value != supported:
            raise ValueError(f"upsampler: {field} is {value}, only {supported} is supported")
    if config.mid_channels % GROUPS:
        raise ValueError(f"upsampler: mid_channels is {config.mid_channels}, not a multiple of {GROUPS}")


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


def upsample(params: Params, latent: Array, config: UpsamplerConfig) -> Array:
    """Upsample a normalised latent.

    Args:
        params: Tree of `params(config)`.
        latent: `[1, C, F, h, w]`, normalised.
        config: Sizes.

    Returns:
        `[1, C, F, 2h, 2w]`, normalised, in the dtype of `latent`.

    Raises:
        ValueError: The file is another kind of upsampler than spatial x2, or the batch is not 1.
    """
    _check(config)
    x = denormalize(params["statistics"], to_video(latent))
    x = silu(_group_norm(params["norm_in"], _convolve(params["conv_in"], x)))
    x = run_layers(_residual, x, params["before"]["blocks"])
    x = depth_to_space(convolve2d(params["upsample"], x), SPATIAL)
    x = run_layers(_residual, x, params["after"]["blocks"])
    return from_video(normalize(params["statistics"], _convolve(params["conv_out"], x)))


def _residual(x: Array, params: Params) -> Array:
    inner = silu(_group_norm(params["norm1"], _convolve(params["conv1"], x)))
    return silu(x + _group_norm(params["norm2"], _convolve(params["conv2"], inner)))


def _convolve(params: Params, x: Array) -> Array:
    """3x3x3 convolution of `[T, H, W, C]` with zeros around it in time and space."""
    return convolve3d(params, jnp.pad(x, ((1, 1), (0, 0), (0, 0), (0, 0))))


def _group_norm(params: Params, x: Array) -> Array:
    """Normalise `[T, H, W, C]` per group of channels over the whole video; f32 inside, one cast."""
    grouped = x.astype(jnp.float32).reshape(*x.shape[:3], GROUPS, -1)
    centred = grouped - jnp.mean(grouped, axis=(0, 1, 2, 4), keepdims=True)
    variance = jnp.mean(centred * centred, axis=(0, 1, 2, 4), keepdims=True)
    scaled = (centred * lax.rsqrt(variance + NORM_EPS)).reshape(x.shape)
    weight: Array = params["weight"].astype(jnp.float32)
    bias: Array = params["bias"].astype(jnp.float32)
    return (scaled * weight + bias).astype(x.dtype)
