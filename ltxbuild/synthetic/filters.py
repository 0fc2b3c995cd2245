"""The signal-processing constants that LTX-2.3 checkpoints store as tensors: vocoder and upsampler."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def lowpass_filter(taps: int = 12, cutoff: float = 0.25, half_width: float = 0.3) -> Float32:
    """Kaiser-windowed sinc low-pass `[taps]` of unit gain; cut-off as a fraction of the sampling rate.

    The window's beta follows from the transition width by Kaiser's formula.
    """
    attenuation = 2.285 * (taps // 2 - 1) * math.pi * 4 * half_width + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    else:
        beta = 0.5842 * max(attenuation - 21, 0.0) ** 0.4 + 0.07886 * max(attenuation - 21, 0.0)
    time = np.arange(taps) - (taps - 1) / 2
    response = 2 * cutoff * np.kaiser(taps, beta) * np.sinc(2 * cutoff * time)
    taper: Float32 = (response / response.sum()).astype(np.float32)
    return taper


def stft_basis(window: int) -> Float32:
    """Hann-windowed Fourier basis `[2 * (window // 2 + 1), 1, window]`: real rows, then imaginary rows."""
    bins = window // 2 + 1
    phase = 2 * np.pi * np.outer(np.arange(bins), np.arange(window)) / window
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    rows = np.concatenate([np.cos(phase), -np.sin(phase)]) * hann
    basis: Float32 = rows[:, None, :].astype(np.float32)
    return basis


def mel_filterbank(mels: int, bins: int, sampling_rate: int = 16000) -> Float32:
    """Triangular mel filters `[mels, bins]` over the positive frequencies, area-normalised."""
    top = 2595 * math.log10(1 + sampling_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)
    frequency = np.linspace(0, sampling_rate / 2, bins)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequency - low) / (centre - low), (high - frequency) / (high - centre)
    triangles = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return triangles.astype(np.float32)


def binomial(taps: int) -> Float32:
    """Blur `[taps, taps]` of unit gain: the outer product of a row of Pascal's triangle with itself."""
    row = np.array([math.comb(taps - 1, tap) for tap in range(taps)]) / 2 ** (taps - 1)
    blur: Float32 = np.outer(row, row).astype(np.float32)
    return blur
