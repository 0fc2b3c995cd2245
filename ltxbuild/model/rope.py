"""Rotary position embedding of the "split" kind, with tables that stay small.

The angle of a token on one axis depends on its coordinate there alone, so each axis has a table of a few
rows (made in numpy, f64 frequencies); the full `[T, heads, head_dim/2]` tables are broadcast from them
inside the program, once per run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Tables = tuple[Array, Array]
"""cos and sin, each `[T, heads, head_dim / 2]`."""


def frequencies(dim: int, axes: int, theta: float) -> Float32:
    """`theta^linspace(0, 1, K) * pi / 2` with `K = dim // (2 * axes)`, computed in f64, rounded to f32."""
    exponents = np.linspace(0.0, 1.0, dim // (2 * axes), dtype=np.float64)
    return (np.power(theta, exponents) * math.pi / 2).astype(np.float32)


def axis_angles(positions: Float32, max_position: float, freqs: Float32) -> Float32:
    """Angles `[N, K]` of `N` positions on one axis: `freq * (2 * position / max_position - 1)` in f32."""
    fraction = positions.astype(np.float32) / np.float32(max_position)
    return (fraction * np.float32(2) - np.float32(1))[:, None] * freqs


def tables(angles: Sequence[Float32], dim: int, heads: int, dtype: DTypeLike) -> Tables:
    """The tables of `grid`, from the angles `[N_axis, K]` of each axis."""
    return grid([rows(axis, dtype) for axis in angles], dim, heads)


def rows(angles: Float32, dtype: DTypeLike) -> Tables:
    """Cosines and sines of one axis' angles `[N, K]`: computed in f64, rounded to f32, then to `dtype`."""
    cos, sin = np.cos(angles.astype(np.float64)), np.sin(angles.astype(np.float64))
    return jnp.asarray(cos.astype(np.float32), dtype), jnp.asarray(sin.astype(np.float32), dtype)


def grid(axes: Sequence[Tables], dim: int, heads: int) -> Tables:
    """cos/sin tables over the grid spanned by the axes, first axis slowest.

    Args:
        axes: `rows` of each axis, `[N_axis, K]`.
        dim: Inner width of the attention; `dim / 2` angles per token.
        heads: Attention heads.

    Returns:
        Two arrays `[prod(N_axis), heads, dim / heads / 2]`. Angles run frequency-major, axis-minor; missing
        ones are filled in front with cos 1, sin 0.
    """
    cos, sin = _spread([axis[0] for axis in axes]), _spread([axis[1] for axis in axes])
    missing = dim // 2 - cos.shape[-1]
    cos = jnp.pad(cos, ((0, 0), (missing, 0)), constant_values=1)
    sin = jnp.pad(sin, ((0, 0), (missing, 0)))
    shape = (cos.shape[0], heads, dim // heads // 2)
    return cos.reshape(shape), sin.reshape(shape)


def _spread(per_axis: Sequence[Array]) -> Array:
    """Spread per-axis `[N_axis, K]` values over the grid: `[prod(N_axis), K * axes]`."""
    sizes = tuple(len(values) for values in per_axis)
    count = len(per_axis)
    spread = []
    for axis, row in enumerate(per_axis):
        shape = tuple(sizes[axis] if i == axis else 1 for i in range(count))
        spread.append(jnp.broadcast_to(row.reshape(*shape, -1), (*sizes, row.shape[-1])))
    return jnp.stack(spread, axis=-1).reshape(math.prod(sizes), -1)


def take(table: Tables, index: Array) -> Tables:
    """The rows `index` `[N]` of a table `[M, K]`; an index outside it takes the nearest row."""
    cos, sin = (jnp.take(values, index, axis=0, mode="clip") for values in table)
    return cos, sin


def join(first: Tables, second: Tables) -> Tables:
    """The tables of some tokens, and of others after them."""
    return jnp.concatenate([first[0], second[0]]), jnp.concatenate([first[1], second[1]])


def rotate(x: Array, rope: Tables) -> Array:
    """Rotate head halves `(a, b)` to `(a cos - b sin, b cos + a sin)`.

    The second product is a fused multiply-add: f32 inside, one rounding.

    Args:
        x: `[B, T, H, D]`.
        rope: cos and sin `[T, H, D / 2]`.
    """
    cos, sin = (table.astype(jnp.float32) for table in rope)
    a, b = jnp.split(x, 2, axis=-1)
    a32, b32 = a.astype(jnp.float32), b.astype(jnp.float32)
    rounded_a = (a32 * cos).astype(x.dtype).astype(jnp.float32)
    rounded_b = (b32 * cos).astype(x.dtype).astype(jnp.float32)
    return jnp.concatenate([rounded_a - sin * b32, rounded_b + sin * a32], axis=-1).astype(x.dtype)
