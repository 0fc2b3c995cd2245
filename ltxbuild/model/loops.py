"""Loops that collect results.

    collect(function, xs, dtype) -> [N, ...]
    bits(x) -> the same bits as whole numbers

XLA:CPU can't update a part of a bf16 array: for every result that a loop adds, it widens all that is
collected, puts the result in, and rounds all of it again. What a loop collects here is whole numbers, of
which only the new ones are written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

T = TypeVar("T")


def collect(function: Callable[[T], Array], xs: T, dtype: DTypeLike) -> Array:
    """Stack what a function makes of each of the leading slices of `xs`.

    Args:
        function: Gives an array, or its bits.
        xs: Arrays `[N, ...]`.
        dtype: What the function's results are, 16 or 32 bits wide.

    Returns:
        `[N, ...]`.
    """
    stacked: Array = lax.bitcast_convert_type(lax.map(lambda x: bits(function(x)), xs), dtype)
    return stacked


def bits(x: Array) -> Array:
    """The same bits as whole numbers; whole numbers stay what they are."""
    if jnp.issubdtype(x.dtype, jnp.integer):
        return x
    return lax.bitcast_convert_type(x, jnp.uint16 if x.dtype.itemsize == 2 else jnp.uint32)
