"""Log-mel spectrograms as LTX-2.3 has them: 1024 samples wide, one every 160, 64 Slaney mel bins."""

from __future__ import annotations

from functools import cache

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from tools.train_demo.world import HOP, SAMPLE_RATE

WINDOW, BINS = 1024, 64
FLOOR = 1e-5
HZ_PER_MEL, KNEE_HZ = 200 / 3, 1000.0
STEP = np.log(6.4) / 27
"""Slaney's scale: linear up to 1 kHz, then 27 mels to every factor of 6.4."""


def log_mel(waveform: Array) -> Array:
    """`[N]` at 16 kHz to `[N / 160, 64]`; frame i is centred at sample 160 i."""
    padded = jnp.pad(waveform, WINDOW // 2, mode="reflect")
    starts = np.arange(waveform.shape[0] // HOP) * HOP
    pieces = padded[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    magnitude = jnp.abs(jnp.fft.rfft(pieces))
    return jnp.log(jnp.maximum(magnitude @ filters().T, FLOOR))


@cache
def filters() -> NDArray[np.float32]:
    """Triangles `[64, 513]` of equal area, evenly spaced in mel."""
    edges = _hertz(np.linspace(0, _mel(SAMPLE_RATE / 2), BINS + 2))
    frequency = np.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequency - low) / (centre - low), (high - frequency) / (high - centre)
    triangles = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return triangles.astype(np.float32)


def _mel(hertz: float) -> float:
    linear = hertz / HZ_PER_MEL
    return linear if hertz < KNEE_HZ else KNEE_HZ / HZ_PER_MEL + float(np.log(hertz / KNEE_HZ)) / STEP


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    knee = KNEE_HZ / HZ_PER_MEL
    return np.where(mel < knee, mel * HZ_PER_MEL, KNEE_HZ * np.exp(STEP * (mel - knee)))
