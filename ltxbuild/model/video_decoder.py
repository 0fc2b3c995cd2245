"""The decoder of the video VAE: latents to frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from jax import Array

from ltxbuild.model.config import VideoVaeConfig
from ltxbuild.model.conv import conv3d, depth_to_space
from ltxbuild.model.forms import Convolution
from ltxbuild.model.params import ParamTable
from ltxbuild.model.video_stages import Stage, decoder_stages
from ltxbuild.model.video_vae import (
    CENTRED,
    Convolve,
    activate,
    convolve,
    denormalize,
    residual_stage,
    run_residual_stage,
    statistics,
    to_video,
)

Params = Mapping[str, Any]


def params(config: VideoVaeConfig) -> ParamTable:
    """Parameters of the decoder, with the latent statistics that it shares with the encoder.

    Raises:
        ValueError: `decoder_blocks` has a kind that is not supported, or a multiplier that does not divide.
    """
    stages = decoder_stages(config)
    pixels = (config.out_channels, config.patch_size, config.patch_size)
    table = statistics(config.latent_channels)
    table += conv3d("conv_in", "vae.decoder.conv_in.conv", stages[0].inputs, config.latent_channels)
    for stage in stages:
        table += _stage_params(stage)
    return table + conv3d("conv_out", "vae.decoder.conv_out.conv", pixels, stages[-1].outputs)


def _stage_params(stage: Stage) -> ParamTable:
    if stage.stride is None:
        return residual_stage(stage.name, stage.key, stage.layers, stage.inputs)
    split = (stage.outputs, math.prod(stage.stride))
    return conv3d(f"{stage.name}.conv", f"{stage.key}.conv.conv", split, stage.inputs)


def decode(params: Params, latent: Array, config: VideoVaeConfig, form: Convolution = "taps") -> Array:
    """Decode a latent, or a tile of one.

    Args:
        params: Tree of `params(config)`.
        latent: `[1, C, t, h, w]`, normalised as the transformer leaves it.
        config: Sizes.
        form: Of the convolutions, see `conv.convolve3d`.

    Returns:
        Frames `[F, H, W, 3]`, black 0 and white 1, in the dtype of `latent`. They are not clamped: tiles are
        blended first. `F = 8 (t - 1) + 1`, `H = 32 h` and `W = 32 w` with the official blocks.

    Raises:
        ValueError: The batch is not 1.
    """
    x = denormalize(params["statistics"], to_video(latent))
    conv = partial(convolve, padding=CENTRED, form=form)
    x = conv(params["conv_in"], x)
    for index, stage in enumerate(decoder_stages(config)):
        x = _run_stage(stage, params["up"][str(index)], x, conv)
    x = conv(params["conv_out"], activate(x))
    frames = depth_to_space(x, (1, config.patch_size, config.patch_size))
    return (frames + 1) * 0.5


def _run_stage(stage: Stage, params: Params, x: Array, conv: Convolve) -> Array:
    if stage.stride is None:
        return run_residual_stage(params, x, conv)
    x = depth_to_space(conv(params["conv"], x), stage.stride)
    # A latent cell stands for `stride` frames, the first one for a single frame.
    return x[1:] if stage.stride[0] > 1 else x
