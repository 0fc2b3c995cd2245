"""Adaptive norm parameters: shifts, scales and gates that depend on how noisy a token is.

Tokens share few noise levels (one, or two when an image is given), so the networks run once per distinct
level and their results are spread over the tokens where they are used.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from ltxbuild.model import layers
from ltxbuild.model.layers import Params
from ltxbuild.model.params import ParamTable, linear

CHANNELS = 256
"""Width of the sinusoidal embedding of a timestep."""
MAX_PERIOD = 10000


class Timesteps(NamedTuple):
    """Noise levels of one modality.

    Attributes:
        sigma: Noise level of the step, `[B]`.
        values: Distinct noise levels of the tokens, `[B, N]` f32; `sigma` times what is left of it where a
            token is partly or wholly given.
        level: Which of the N levels each token has, `[T]` int32; None when all have the only one.
    """

    sigma: Array
    values: Array
    level: Array | None

    @property
    def per_token(self) -> Array:
        """Noise level of each token, `[B, T, 1]`, or `[B, 1, 1]` when all have the same."""
        return spread(self.values[..., None], self.level)


def uniform(sigma: Array) -> Timesteps:
    """Timesteps of a modality whose tokens are all at noise level `sigma` `[B]`."""
    return Timesteps(sigma, sigma[:, None], None)


def table(name: str, key: str, dim: int, rows: int) -> ParamTable:
    """Parameters of one network that turns a timestep into `rows` vectors of width `dim`.

    Every device holds them whole: split by width, the compiler carries the split on into the token stream
    and gathers all tokens before every projection.
    """
    return (
        *linear(f"{name}.linear_1", f"{key}.emb.timestep_embedder.linear_1", dim, CHANNELS),
        *linear(f"{name}.linear_2", f"{key}.emb.timestep_embedder.linear_2", dim, dim),
        *linear(f"{name}.rows", f"{key}.linear", rows * dim, dim),
    )


def apply(params: Params, timesteps: Array, dtype: DTypeLike) -> tuple[Array, Array]:
    """Run one network.

    Args:
        params: Tree of `table`.
        timesteps: `[B, N]` f32, in the trained range (sigma times 1000).
        dtype: What the network computes in.

    Returns:
        Rows `[B, N, rows, D]` and the embedding they come from `[B, N, D]`.
    """
    embedding = layers.linear(params["linear_1"], sinusoids(timesteps).astype(dtype))
    embedding = layers.linear(params["linear_2"], layers.silu(embedding))
    rows = layers.linear(params["rows"], layers.silu(embedding))
    return rows.reshape(*timesteps.shape, -1, embedding.shape[-1]), embedding


def sinusoids(timesteps: Array) -> Array:
    """Cosines, then sines, of `timesteps` `[B, N]` at `CHANNELS / 2` frequencies: `[B, N, CHANNELS]` f32."""
    half = CHANNELS // 2
    exponent = np.float32(-math.log(MAX_PERIOD)) * np.arange(half, dtype=np.float32) / np.float32(half)
    frequencies = np.exp(exponent.astype(np.float64)).astype(np.float32)
    angles = _within_a_turn(timesteps.astype(jnp.float32)[..., None] * frequencies)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def _within_a_turn(angles: Array) -> Array:
    """Angles less whole turns, in [-pi, pi]: beyond it the sines of accelerators differ, or are no sines.

    The turn has two parts, so that nothing is rounded off with the first: it has 8 bits, like the turns.
    """
    coarse = np.float32(6.28125)
    turns = jnp.floor(angles * np.float32(0.5 / math.pi) + np.float32(0.5))
    return (angles - turns * coarse) - turns * np.float32(2 * math.pi - float(coarse))


def rows(own: Array, modulation: Array, level: Array | None) -> list[Array]:
    """The vectors a block uses: its `own` ones plus the step's `modulation`, per token.

    Args:
        own: `[R, D]`.
        modulation: `[B, N, R, D]`.
        level: See `Timesteps`.

    Returns:
        R arrays `[B, T, D]`, or `[B, 1, D]` when all tokens share one.
    """
    values = own.astype(modulation.dtype) + modulation
    return [spread(values[:, :, r], level) for r in range(own.shape[0])]


def spread(values: Array, level: Array | None) -> Array:
    """Give each token its value: `[B, N, D]` to `[B, T, D]` by `level` `[T]`, unchanged without one.

    A chain of selects and not a gather: it fuses into the arithmetic around it, so that the result is never
    held in memory, and N is two at most in practice.
    """
    if level is None:
        return values
    chosen = values[:, :1]
    for n in range(1, values.shape[1]):
        chosen = jnp.where((level == n)[None, :, None], values[:, n : n + 1], chosen)
    return chosen


def modulate(x: Array, scale: Array, shift: Array) -> Array:
    """`x * (1 + scale) + shift`, each operation rounded."""
    return x * (1 + scale) + shift
