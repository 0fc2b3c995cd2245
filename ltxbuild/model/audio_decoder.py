"""The audio VAE's decoder: audio latents to a stereo mel spectrogram.

Inside, a spectrogram is an image `[B, T, mel, C]`. Convolutions are causal in time: both rows of padding lie
before the first one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array

from ltxbuild.model.audio_vae import level_widths, middle, residual_block
from ltxbuild.model.config import AudioVaeConfig
from ltxbuild.model.conv import conv2d, convolve2d
from ltxbuild.model.forms import Convolution
from ltxbuild.model.geometry import MEL_STRIDE
from ltxbuild.model.layers import pixel_norm, run_layers, silu
from ltxbuild.model.params import ParamTable, prefixed, stack, vector

Params = Mapping[str, Any]

KEY = "audio_vae.decoder"
STATISTICS = "audio_vae.per_channel_statistics"
NORM_EPS = 1e-6


def params(config: AudioVaeConfig) -> ParamTable:
    """Every tensor under `audio_vae.decoder.` and the statistics of the latents."""
    widths = level_widths(config)
    table = vector("statistics.mean", f"{STATISTICS}.mean-of-means", config.ch)
    table += vector("statistics.std", f"{STATISTICS}.std-of-means", config.ch)
    table += conv2d("conv_in", f"{KEY}.conv_in.conv", widths[-1], config.z_channels)
    for level in reversed(range(len(widths))):
        table += prefixed(f"levels.{level}", _level_table(level, widths, config.num_res_blocks + 1))
    return table + conv2d("conv_out", f"{KEY}.conv_out.conv", config.out_ch, widths[0])


def _level_table(level: int, widths: tuple[int, ...], count: int) -> ParamTable:
    """Specs of one resolution. Blocks are stacked, but for a first one that changes the width."""
    coarsest, key = level == len(widths) - 1, f"{KEY}.up.{level}"
    inputs, outputs = widths[level if coarsest else level + 1], widths[level]
    blocks = middle(KEY, outputs) if coarsest else []
    blocks += [residual_block(f"{key}.block.{i}", outputs, outputs if i else inputs) for i in range(count)]
    table = prefixed("first", blocks.pop(0)) if inputs != outputs else ()
    table += prefixed("blocks", stack(blocks))
    if level:
        table += conv2d("upsample", f"{key}.upsample.conv.conv", outputs, outputs)
    return table


def decode(params: Params, latent: Array, config: AudioVaeConfig, form: Convolution = "taps") -> Array:
    """Turn audio latents into a mel spectrogram.

    Args:
        params: Tree of `params`' table.
        latent: `[B, C, T, F]` as the transformer gives it, C times F values per frame.
        config: Sizes.
        form: Of the convolutions, see `conv.convolve2d`.

    Returns:
        `[B, out_ch, 4 * T - 3, mel_bins]` in the dtype of `latent`.
    """
    x = jnp.moveaxis(_denormalize(params["statistics"], latent), 1, -1)
    x = _convolve(params["conv_in"], x, form)
    for level in reversed(range(len(config.ch_mult))):
        x = _level(params["levels"][str(level)], x, form)
    x = _convolve(params["conv_out"], _activate(x), form)
    return jnp.moveaxis(_fit(x, MEL_STRIDE * (latent.shape[2] - 1) + 1, config.mel_bins), -1, 1)


def _denormalize(params: Params, latent: Array) -> Array:
    """To the decoder's scale; the statistics are numbered channel by channel, bin by bin."""
    _, channels, _, bins = latent.shape
    mean: Array = params["mean"].astype(latent.dtype).reshape(channels, 1, bins)
    std: Array = params["std"].astype(latent.dtype).reshape(channels, 1, bins)
    return latent * std + mean


def _level(params: Params, x: Array, form: Convolution) -> Array:
    """Residual blocks of one resolution, then twice the resolution if there is a finer one."""
    residual = partial(_residual, form=form)
    if "first" in params:
        x = residual(x, params["first"])
    x = run_layers(residual, x, params["blocks"])
    if "upsample" not in params:
        return x
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return _convolve(params["upsample"], x, form)[:, 1:]


def _residual(x: Array, params: Params, form: Convolution) -> Array:
    inner = _convolve(params["conv1"], _activate(x), form)
    inner = _convolve(params["conv2"], _activate(inner), form)
    skip = convolve2d(params["shortcut"], x, ((0, 0), (0, 0)), form) if "shortcut" in params else x
    return skip + inner


def _activate(x: Array) -> Array:
    return silu(pixel_norm(x, NORM_EPS))


def _convolve(params: Params, x: Array, form: Convolution) -> Array:
    return convolve2d(params, x, ((2, 0), (1, 1)), form)


def _fit(x: Array, frames: int, bins: int) -> Array:
    """Crop `[B, T, mel, C]`, or fill it with zeros, to the size that the vocoder expects."""
    x = x[:, :frames, :bins]
    return jnp.pad(x, ((0, 0), (0, frames - x.shape[1]), (0, bins - x.shape[2]), (0, 0)))
