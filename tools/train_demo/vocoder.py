"""The vocoder: spectrograms back to sound.

A spectrogram holds no phase, so that a vocoder is usually trained against discriminators. This world needs
none: a generator turns equal mel frames into equal 160 samples, and every note is a whole number of periods
in 160 samples. The waveform follows from the spectrogram, and its distance to the right one is the loss.
Training starts from weights that play these notes already (`additive.py`).

There is nothing above 8 kHz in this world. The bandwidth extension adds nothing to the resampled sound: its
last convolution is zero, and everything before it random.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ltxbuild.model import audio_decoder
from ltxbuild.model import vocoder as model
from ltxbuild.model.config import AudioVaeConfig, VocoderConfig
from ltxbuild.model.generator import generate
from tools.train_demo import audio_vae, world
from tools.train_demo.additive import NOTES, Floats, draw_notes, fit_loudness
from tools.train_demo.loop import Run, train
from tools.train_demo.mel import log_mel
from tools.train_demo.weights import Params, initial

SCALES = {r"conv_post": 0.01, r"kernels": 0.03, r"conv_pre": 0.1, r"up\.weight": 0.5}
LATENT_NOISE = 0.15
"""Of the latents that the spectrograms come from: generated ones are never exact."""
STEPS, BATCH, RATE = 400, 3, 1e-5
EXAMPLES = 24
"""Spectrograms that the first weights are fitted to."""


def fit(config: VocoderConfig, audio_config: AudioVaeConfig, audio: Params, directory: Path) -> Params:
    """Train the generator on what the audio VAE's decoder gives."""
    params = initial(model.params(config), 0, SCALES)
    mel, loudness = _examples(audio, audio_config)
    weight, bias = fit_loudness(mel, loudness, params["vocoder"]["conv_pre"]["weight"].shape[0])
    draw_notes(params["vocoder"], weight, bias, config.vocoder.upsample_rates)
    run = Run("vocoder", directory, STEPS, RATE)
    trained = train(
        run,
        {"vocoder": params["vocoder"]},
        lambda p, key: loss(p["vocoder"], key, config, audio_config, audio),
    )
    params |= trained
    params["bwe"]["conv_post"]["weight"] = np.zeros_like(params["bwe"]["conv_post"]["weight"])
    return params


def _examples(audio: Params, config: AudioVaeConfig) -> tuple[Floats, Floats]:
    """Spectrograms `[N, T, 64]` from the audio VAE, and how loud each note is, `[N, T, notes]`."""
    tunes, volumes = audio_vae.tunes(jax.random.key(3), EXAMPLES)
    waves = jax.vmap(world.waveform)(tunes, volumes)
    mel = heard(audio, waves, jax.random.key(4), config)
    frames = waves.reshape(EXAMPLES, -1, world.HOP)
    basis = np.sin(2 * np.pi * np.outer(NOTES, np.arange(world.HOP)) / world.SAMPLE_RATE)
    # The sines are orthogonal over a frame, in which each has a whole number of periods.
    return np.asarray(mel[:, 0]), np.asarray(frames @ basis.T * (2 / world.HOP))


def heard(audio: Params, waves: Array, key: Array, config: AudioVaeConfig) -> Array:
    """Spectrograms `[B, 2, T, 64]` of waveforms `[B, N]` as the decoder gives them from noisy codes."""
    mel = jax.vmap(log_mel)(waves)
    code = audio_vae.normalised(audio_vae.model_code(jnp.stack([mel, mel], axis=1)))
    noisy = code + LATENT_NOISE * jax.random.normal(key, code.shape)
    return audio_decoder.decode(audio["decoder"], noisy, config)


def loss(
    params: Params, key: Array, config: VocoderConfig, audio_config: AudioVaeConfig, audio: Params
) -> Array:
    """Distance between the waveforms, sample by sample."""
    draw, noise = jax.random.split(key)
    waves = jax.vmap(world.waveform)(*audio_vae.tunes(draw, BATCH))
    mel = heard(audio, waves, noise, audio_config)
    layers = written_out(params)
    error = jax.vmap(lambda m: generate(layers, m, config.vocoder))(mel) - waves[:, None]
    return jnp.mean(jnp.abs(error)) + 5 * jnp.mean(error**2)


def written_out(params: Params) -> Params:
    """The same with residual layers one by one: the form of the generator that is fast on a CPU."""

    def split(stacked: Any) -> list[Any]:
        count = len(jax.tree.leaves(stacked)[0])
        return [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(count)]

    stages = {
        name: {
            **stage,
            "blocks": split(stage["blocks"]),
            "kernels": {size: {"blocks": split(k["blocks"])} for size, k in stage["kernels"].items()},
        }
        for name, stage in params["stages"].items()
    }
    return {**params, "stages": stages}
