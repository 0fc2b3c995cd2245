"""The audio autoencoder: four mel frames become one token of 16 numbers, one for each four mel bins.

As for video, encoder and decoder learn from a model and not from each other: a number is the mean of its four
by four mel values. What was averaged away the decoder has to know.

Generation never encodes sound, so the project has a decoder and only the names of the encoder's weights. The
encoder's function is here. It follows the official one: convolutions causal in time, residual blocks, and
halving by strided convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ltxbuild.model import audio_decoder, audio_encoder
from ltxbuild.model.config import AudioVaeConfig
from ltxbuild.model.conv import convolve2d
from ltxbuild.model.layers import pixel_norm, silu
from tools.train_demo import world
from tools.train_demo.loop import Run, train
from tools.train_demo.mel import log_mel
from tools.train_demo.weights import Params, initial

NORM_EPS = 1e-6
NOISE = 0.1
VOLUMES = (0.3, 0.6)
CODE_MEAN, CODE_DEVIATION = -9.0, 3.0
"""Roughly those of a spectrogram's means; exact in bf16, as which the checkpoint holds them."""
MEAN_MEL = -7.0
"""Roughly the mean of a spectrogram: where the decoder starts, instead of at zero."""
SCALES = {r"conv_out": 0.1, r"conv2": 0.2}
STEPS, BATCH, RATE = 500, 8, 3e-3


def encode(params: Mapping[str, Any], mel: Array, config: AudioVaeConfig) -> Array:
    """Spectrogram `[B, 2, Tm, mel]` to the latents' means `[B, C, (Tm + 3) / 4, mel / 4]`, not normalised."""
    x = _convolve(params["conv_in"], jnp.moveaxis(mel, 1, -1))
    for level in range(len(config.ch_mult)):
        stage = params["down"][str(level)]
        for block in range(config.num_res_blocks):
            x = _residual(stage[str(block)], x)
        if "downsample" in stage:
            x = _halve(stage["downsample"], x)
    for number in ("0", "1"):
        x = _residual(params["mid"][number], x)
    moments = _convolve(params["conv_out"], silu(pixel_norm(x, NORM_EPS)))
    return jnp.moveaxis(moments[..., : config.z_channels], -1, 1)


def _residual(params: Mapping[str, Any], x: Array) -> Array:
    inner = _convolve(params["conv1"], silu(pixel_norm(x, NORM_EPS)))
    inner = _convolve(params["conv2"], silu(pixel_norm(inner, NORM_EPS)))
    skip = convolve2d(params["shortcut"], x, ((0, 0), (0, 0))) if "shortcut" in params else x
    return skip + inner


def _convolve(params: Mapping[str, Any], x: Array) -> Array:
    return convolve2d(params, x, ((2, 0), (1, 1)))


def _halve(params: Mapping[str, Any], x: Array) -> Array:
    y = lax.conv_general_dilated(
        x, params["weight"], (2, 2), ((2, 0), (0, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    bias: Array = params["bias"]
    return y + bias


def fit(config: AudioVaeConfig, directory: Path) -> Params:
    """Train both halves; the encoder's result is normalised by the statistics in `decoder`."""
    params: Params = {
        "encoder": initial(audio_encoder.params(config), 0, SCALES),
        "decoder": initial(audio_decoder.params(config), 0, SCALES),
    }
    params["decoder"]["conv_out"]["bias"] += MEAN_MEL
    params["decoder"]["statistics"] = {
        "mean": np.full(config.ch, CODE_MEAN, np.float32),
        "std": np.full(config.ch, CODE_DEVIATION, np.float32),
    }
    run = Run("audio_vae", directory, STEPS, RATE)
    return train(run, params, lambda p, key: loss(p, key, config))


def loss(params: Params, key: Array, config: AudioVaeConfig) -> Array:
    """Distance between spectrograms and what becomes of their codes, and between codes and the encoder's."""
    draw, noise = jax.random.split(key)
    mel = spectrograms(draw, BATCH)
    code = model_code(mel)
    wrong = (encode(params["encoder"], mel, config) - code) / CODE_DEVIATION
    noisy = normalised(code) + NOISE * jax.random.normal(noise, code.shape)
    error = audio_decoder.decode(params["decoder"], noisy, config) - mel
    return jnp.mean(jnp.abs(error)) + 0.1 * jnp.mean(error**2) + jnp.mean(wrong**2)


def model_code(mel: Array) -> Array:
    """Spectrograms `[B, 2, Tm, 64]` to codes `[B, 1, (Tm + 3) / 4, 16]`; the first is of one frame."""
    mono = jnp.mean(mel, axis=1)
    padded = jnp.concatenate([jnp.repeat(mono[:, :1], 3, axis=1), mono], axis=1)
    return padded.reshape(len(mel), -1, 4, mel.shape[3] // 4, 4).mean(axis=(2, 4))[:, None]


def normalised(code: Array) -> Array:
    """A code as the transformer knows it."""
    return (code - CODE_MEAN) / CODE_DEVIATION


def spectrograms(key: Array, batch: int) -> Array:
    """Random tunes as spectrograms `[batch, 2, Tm, 64]`, the same on both channels."""
    mel = jax.vmap(log_mel)(jax.vmap(world.waveform)(*tunes(key, batch)))
    return jnp.stack([mel, mel], axis=1)


def tunes(key: Array, batch: int) -> tuple[Array, Array]:
    """Random tunes and volumes, each `[batch]`."""
    which, volume = jax.random.split(key)
    return (
        jax.random.randint(which, (batch,), 0, len(world.TUNES)),
        jax.random.uniform(volume, (batch,), minval=VOLUMES[0], maxval=VOLUMES[1]),
    )
