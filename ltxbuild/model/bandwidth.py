"""What surrounds the bandwidth extension: the spectrogram it reads and the resampler it adds to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from ltxbuild.model.config import BandwidthConfig
from ltxbuild.model.conv1d import EXACT, replicate
from ltxbuild.model.params import Layout, ParamSpec, ParamTable

Params = Mapping[str, Any]

ROLLOFF = 0.99
ZERO_CROSSINGS = 6
WIDTH = math.ceil(ZERO_CROSSINGS / ROLLOFF)
"""Half width of the resampling filter in input samples."""


def spectrogram(prefix: str, config: BandwidthConfig) -> ParamTable:
    """Specs of the stored Fourier bases and the mel filter bank.

    `inverse [2 * bins, n_fft]` is part of the checkpoint but read by nothing.
    """
    bins = config.n_fft // 2 + 1
    rows = (2 * bins, config.n_fft)
    layout = Layout((2 * bins, 1, config.n_fft), rows, (0, 1))

    def basis(name: str) -> ParamSpec:
        key = f"{prefix}.stft_fn.{name}_basis"
        return ParamSpec(name, rows, (None, None), (key,), layout, "float32")

    mel = ParamSpec("mel", (config.num_mels, bins), (None, None), (f"{prefix}.mel_basis",), storage="float32")
    return basis("forward"), basis("inverse"), mel


def log_mel(params: Params, waveform: Array, config: BandwidthConfig) -> Array:
    """Causal log-mel spectrogram: a frame sees its own hop and what came before.

    Args:
        params: Tree of `spectrogram`'s table.
        waveform: `[channels, N]` with N a multiple of the hop length.
        config: Window and hop.

    Returns:
        `[channels, N / hop, num_mels]`.
    """
    frames = _frames(waveform, config.n_fft, config.hop_length)
    spectrum = _matmul(frames, params["forward"])
    real, imaginary = jnp.split(spectrum, 2, axis=-1)
    magnitude = jnp.sqrt(real * real + imaginary * imaginary)
    return jnp.log(jnp.maximum(_matmul(magnitude, params["mel"]), 1e-5))


def _frames(waveform: Array, window: int, hop: int) -> Array:
    """The `window` samples up to the end of each hop: `[channels, N / hop, window]`."""
    hops = -(-window // hop)
    channels, length = waveform.shape
    count = length // hop
    pieces = jnp.pad(waveform, ((0, 0), ((hops - 1) * hop, 0))).reshape(channels, -1, hop)
    spread = jnp.concatenate([pieces[:, i : i + count] for i in range(hops)], axis=-1)
    return spread[..., hops * hop - window :]


def _matmul(x: Array, weight: Array) -> Array:
    """`x [..., in]` times `weight [out, in]` transposed."""
    return lax.dot_general(x, weight, (((x.ndim - 1,), (1,)), ((), ())), precision=EXACT)


def resample(waveform: Array, ratio: int) -> Array:
    """Upsample `[channels, N]` by an integer with a Hann-windowed sinc; `[channels, N * ratio]`."""
    kernel = _resampling_kernel(ratio)
    padded = replicate(waveform[..., None], WIDTH, WIDTH)
    y = lax.conv_general_dilated(
        padded,
        jnp.asarray(kernel),
        window_strides=(1,),
        padding="VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=EXACT,
    )
    return y.reshape(waveform.shape[0], -1)


def _resampling_kernel(ratio: int) -> NDArray[np.float32]:
    """The filter split into one convolution per output phase, `[2 * WIDTH + 1, 1, ratio]`."""
    size = 2 * WIDTH * ratio + 1
    time = (np.arange(size) / ratio - WIDTH) * ROLLOFF
    window = np.cos(np.clip(time, -ZERO_CROSSINGS, ZERO_CROSSINGS) * np.pi / ZERO_CROSSINGS / 2) ** 2
    taps = np.pad(np.sinc(time) * window * ROLLOFF, (0, ratio - 1))
    return taps.reshape(-1, 1, ratio)[::-1].astype(np.float32)
