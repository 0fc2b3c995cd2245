"""Loops that collect results, as XLA:CPU does them well.

    collect(function, xs) -> [N, ...]
    bits(x) -> the same bits as whole numbers
    floats(x) -> the numbers that the bits are of
    apart(function, ...) -> what the function makes, in loops of its own

XLA:CPU can't update a part of a bf16 array: for every result that a loop adds, it widens all that is
collected, puts the result in, and rounds all of it again. Nor can it take a part of one: it widens all that
a loop goes through. What a loop goes through or collects here is whole numbers, of which only those of the
turn are read or written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.xla_metadata import set_xla_metadata

T = TypeVar("T")
R = TypeVar("R")


def collect(function: Callable[[T], Array], xs: T) -> Array:
    """Stack what a function makes of each of the leading slices of `xs`.

    Args:
        function: Gives an array of bf16 or f32, or its bits.
        xs: Arrays `[N, ...]`.

    Returns:
        `[N, ...]`, bf16 or f32.
    """
    return floats(lax.map(lambda x: bits(function(x)), xs))


def bits(x: Array) -> Array:
    """The same bits as whole numbers; whole numbers stay what they are."""
    if jnp.issubdtype(x.dtype, jnp.integer):
        return x
    return lax.bitcast_convert_type(x, jnp.uint16 if x.dtype.itemsize == 2 else jnp.uint32)


def floats(x: Array) -> Array:
    """What `bits` were made of, 16 of a bf16 number and 32 of an f32 one; anything else stays what it is."""
    if not jnp.issubdtype(x.dtype, jnp.unsignedinteger):
        return x
    return lax.bitcast_convert_type(x, jnp.bfloat16 if x.dtype.itemsize == 2 else jnp.float32)


def apart(function: Callable[..., R], *arguments: Array) -> R:
    """Call a function that stays one when compiled, so that its loops are spread over all cores.

    Loops that are fused with the write of a loop's result run in one thread.
    """
    with set_xla_metadata(inlineable="false"):  # type: ignore[no-untyped-call]
        result: R = jax.jit(function)(*arguments)
        return result
