"""The encoder of the video VAE: frames to latents. Causal in time, so one image is a video of one frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array

from ltxbuild.model.config import VideoVaeConfig
from ltxbuild.model.conv import conv3d
from ltxbuild.model.forms import Convolution
from ltxbuild.model.params import ParamTable
from ltxbuild.model.video_stages import Stage, encoder_stages
from ltxbuild.model.video_vae import (
    CAUSAL,
    Convolve,
    activate,
    convolve,
    from_video,
    normalize,
    residual_stage,
    run_residual_stage,
    statistics,
    to_video,
)

Params = Mapping[str, Any]


def params(config: VideoVaeConfig) -> ParamTable:
    """Parameters of the encoder, with the latent statistics that it shares with the decoder.

    Raises:
        ValueError: `encoder_blocks` has a kind that is not supported, or widths that do not divide.
    """
    stages = encoder_stages(config)
    pixels = config.in_channels * config.patch_size**2
    table = statistics(config.latent_channels)
    table += conv3d("conv_in", "vae.encoder.conv_in.conv", stages[0].inputs, pixels)
    for stage in stages:
        table += _stage_params(stage)
    moments = config.latent_channels + 1
    return table + conv3d("conv_out", "vae.encoder.conv_out.conv", moments, stages[-1].outputs)


def _stage_params(stage: Stage) -> ParamTable:
    if stage.stride is None:
        return residual_stage(stage.name, stage.key, stage.layers, stage.inputs)
    outputs = stage.outputs // math.prod(stage.stride)
    return conv3d(f"{stage.name}.conv", f"{stage.key}.conv.conv", outputs, stage.inputs)


def encode(params: Params, frames: Array, config: VideoVaeConfig, form: Convolution = "taps") -> Array:
    """Encode frames to the normalised means of their latents.

    Args:
        params: Tree of `params(config)`.
        frames: `[1, 3, F, H, W]` in [-1, 1].
        config: Sizes.
        form: Of the convolutions, see `conv.convolve3d`.

    Returns:
        `[1, C, f, h, w]` in the dtype of `frames`; with the official blocks `F = 8 (f - 1) + 1`, `H = 32 h`
        and `W = 32 w`.

    Raises:
        ValueError: The batch is not 1, or F, H or W does not fit the blocks.
    """
    stages = encoder_stages(config)
    _check_size(frames.shape[2:], stages, config.patch_size)
    x = _patchify(to_video(frames), config.patch_size)
    conv = partial(convolve, padding=CAUSAL, form=form)
    x = conv(params["conv_in"], x)
    for index, stage in enumerate(stages):
        x = _run_stage(stage, params["down"][str(index)], x, conv)
    moments = conv(params["conv_out"], activate(x))
    return from_video(normalize(params["statistics"], moments[..., : config.latent_channels]))


def _check_size(size: tuple[int, ...], stages: list[Stage], patch: int) -> None:
    strides = [stage.stride for stage in stages if stage.stride is not None]
    time, rows, columns = (math.prod(axis) for axis in zip(*strides, strict=True))
    frames, height, width = size
    if (frames - 1) % time or height % (rows * patch) or width % (columns * patch):
        raise ValueError(
            f"{frames} frames of {height} x {width} cannot be encoded: frames must be a multiple of {time} "
            f"plus 1, height a multiple of {rows * patch}, width a multiple of {columns * patch}"
        )


def _patchify(x: Array, patch: int) -> Array:
    """`[T, H, W, C]` to `[T, H / p, W / p, C p p]`: columns of a patch vary slower than its rows."""
    frames, height, width, channels = x.shape
    blocks = x.reshape(frames, height // patch, patch, width // patch, patch, channels)
    return blocks.transpose(0, 1, 3, 5, 4, 2).reshape(frames, height // patch, width // patch, -1)


def _run_stage(stage: Stage, params: Params, x: Array, conv: Convolve) -> Array:
    if stage.stride is None:
        return run_residual_stage(params, x, conv)
    if stage.stride[0] > 1:
        x = jnp.concatenate([x[:1], x])
    groups = _space_to_depth(x, stage.stride)
    skip = groups.reshape(*groups.shape[:3], stage.outputs, -1).mean(axis=-1, dtype=jnp.float32)
    return _space_to_depth(conv(params["conv"], x), stage.stride) + skip.astype(x.dtype)


def _space_to_depth(x: Array, stride: tuple[int, int, int]) -> Array:
    """`[T, H, W, C]` to `[T / pt, H / ph, W / pw, C pt ph pw]`, channels slowest as in the checkpoint."""
    time, rows, columns = stride
    frames, height, width, channels = (
        x.shape[0] // time,
        x.shape[1] // rows,
        x.shape[2] // columns,
        x.shape[3],
    )
    blocks = x.reshape(frames, time, height, rows, width, columns, channels)
    return blocks.transpose(0, 2, 4, 6, 1, 3, 5).reshape(frames, height, width, -1)
