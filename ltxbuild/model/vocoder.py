"""The vocoder: mel spectrogram to stereo waveform, then bandwidth extension to the output sampling rate.

Everything is computed in f32, whatever the precision of the other components: the weights are stored widened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from ltxbuild.model.bandwidth import log_mel, resample, spectrogram
from ltxbuild.model.config import VocoderConfig
from ltxbuild.model.forms import Convolution
from ltxbuild.model.generator import generate, generator
from ltxbuild.model.params import ParamTable, prefixed

Params = Mapping[str, Any]


def params(config: VocoderConfig) -> ParamTable:
    """Every tensor under `vocoder.` of an official checkpoint."""
    return (
        prefixed("vocoder", generator("vocoder.vocoder", config.vocoder))
        + prefixed("bwe", generator("vocoder.bwe_generator", config.bwe))
        + prefixed("mel_stft", spectrogram("vocoder.mel_stft", config.bwe))
    )


def vocode(params: Params, mel: Array, config: VocoderConfig, form: Convolution = "taps") -> Array:
    """Turn the audio decoder's spectrogram into sound.

    Args:
        params: Tree of `params`' table, f32.
        mel: `[1, 2, Tm, 64]`.
        config: Sizes.
        form: Of the convolutions, see `conv1d.convolve1d`.

    Returns:
        `[2, N]` f32 in [-1, 1] at the output sampling rate, rounded to the dtype of `mel`; N is Tm times the
        vocoder's upsampling times the ratio of the sampling rates.
    """
    bwe = config.bwe
    first = generate(params["vocoder"], mel[0].astype(jnp.float32), config.vocoder, form)
    waveform = jnp.clip(first, -1.0, 1.0)
    length = waveform.shape[1] * bwe.output_sampling_rate // bwe.input_sampling_rate
    padded = jnp.pad(waveform, ((0, 0), (0, -waveform.shape[1] % bwe.hop_length)))
    residual = generate(params["bwe"], log_mel(params["mel_stft"], padded, bwe), bwe, form)
    skip = resample(padded, bwe.output_sampling_rate // bwe.input_sampling_rate)
    wide = jnp.clip(residual + skip, -1.0, 1.0)[:, :length]
    return wide.astype(mel.dtype).astype(jnp.float32)
