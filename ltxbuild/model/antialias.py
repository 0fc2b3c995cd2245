"""The anti-aliased activation of the waveform generators: twofold upsampling, snake, twofold downsampling.

Both resamplers are depthwise convolutions with a stored filter of 12 taps, the same for all channels. They
are computed in polyphase form: the upsampled signal is kept as its even and its odd samples, each a sum of
six shifted inputs, so that nothing is interleaved and no zero is multiplied. The even sample 2t reads the
inputs t - 3 to t + 2, the odd sample 2t + 1 those from t - 2 to t + 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ltxbuild.model.conv1d import materialized, replicate
from ltxbuild.model.params import Layout, ParamSpec, ParamTable

Params = Mapping[str, Any]

TAPS = 12
PHASE = TAPS // 2
"""Taps per phase."""
PI_HIGH = np.float32(3.140625)
"""Eight bits of pi: times a whole number below 2 ** 16, it is exact."""
PI_LOW = np.float32(np.pi - 3.140625)
SINE = tuple(np.float32((-1) ** (n // 2) / math.factorial(n)) for n in range(3, 14, 2))
"""Taylor coefficients after the first; what they leave out at pi / 2 is below 1e-9."""


def activation(name: str, key: str, channels: int) -> ParamTable:
    """Specs of one activation: `alpha`, `beta` `[C]` and the filters `up`, `down` `[12]`."""

    def vector(ours: str, theirs: str) -> ParamSpec:
        return ParamSpec(f"{name}.{ours}", (channels,), (None,), (f"{key}.{theirs}",), storage="float32")

    def taps(ours: str, theirs: str) -> ParamSpec:
        layout = Layout((1, 1, TAPS), (TAPS,), (0,))
        return ParamSpec(f"{name}.{ours}", (TAPS,), (None,), (f"{key}.{theirs}",), layout, "float32")

    return (
        vector("alpha", "act.alpha"),
        vector("beta", "act.beta"),
        taps("up", "upsample.filter"),
        taps("down", "downsample.lowpass.filter"),
    )


def activate(params: Params, x: Array) -> Array:
    """Apply one activation to each of several signals.

    Args:
        params: `alpha`, `beta` `[G, C]` and `up`, `down` `[G, 12]`.
        x: `[G, T, C]`, f32.

    Returns:
        `[G, T, C]`.
    """
    alpha = jnp.exp(params["alpha"])[:, None]
    amount = (1.0 / (jnp.exp(params["beta"]) + 1e-9))[:, None]
    # Were the padded signals not whole, each of the taps would compute the sine anew: three times slower on
    # a CPU, because XLA cuts shifted reads out of the padding.
    padded = materialized(replicate(x, 3, 3))
    up, down = 2 * params["up"][:, ::-1], params["down"]
    even = _snake(_correlate(up[:, 0::2], padded[:, :-1]), alpha, amount)
    odd = _snake(_correlate(up[:, 1::2], padded[:, 1:]), alpha, amount)
    even, odd = materialized(_padded_phases(even, odd))
    return _correlate(down[:, 1::2], even) + _correlate(down[:, 0::2], odd)


def _correlate(taps: Array, x: Array) -> Array:
    """Slide `[G, 6]` over `[G, T + 5, C]`."""
    length = x.shape[1] - PHASE + 1
    total = taps[:, 0, None, None] * x[:, :length]
    for i in range(1, PHASE):
        total = total + taps[:, i, None, None] * x[:, i : i + length]
    return total


def _snake(x: Array, alpha: Array, amount: Array) -> Array:
    return x + amount * sine_squared(x * alpha)


def sine_squared(x: Array) -> Array:
    """`sin(x) ** 2` of f32 values, within 3e-7 for |x| up to 1000.

    The square has the period pi and no sign, so that one subtraction and one odd polynomial do. XLA:CPU
    computes its sine value by value where it is fused with other operations: an eighth of the speed.
    """
    periods = jnp.round(x * np.float32(1 / np.pi))
    rest = (x - periods * PI_HIGH) - periods * PI_LOW
    square = rest * rest
    series = jnp.full_like(x, SINE[-1])
    for coefficient in SINE[-2::-1]:
        series = series * square + coefficient
    sine = rest + rest * square * series
    return sine * sine


def _padded_phases(even: Array, odd: Array) -> tuple[Array, Array]:
    """Even and odd samples of the upsampled signal repeated at its ends, 5 samples in front and 6 behind.

    The signal's first sample is an even one, its last an odd one. The padded signal starts with an odd one.
    """
    groups, _, channels = even.shape
    first, last = even[:, :1], odd[:, -1:]

    def ends(phase: Array, before: int, after: int) -> Array:
        front = jnp.broadcast_to(first, (groups, before, channels))
        back = jnp.broadcast_to(last, (groups, after, channels))
        return jnp.concatenate([front, phase, back], axis=1)

    return ends(even, 2, 3), ends(odd, 3, 2)
