"""Floating-point operations of a program, counted before it is compiled: those of products and convolutions.

Compilers count the body of a loop once, and see what they made of a product; this counts what the model asks
for, with every iteration. All else is a few operations per element, which memory bandwidth bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

CUDNN_ATTENTION = "dot_product_attention_fwd_wrapper"
"""What jax calls cuDNN's kernel, on `[B, T, H, D]`: it has no jaxpr inside."""


def count(jaxpr: Any) -> int:
    """Operations of a jaxpr, on all devices together; a multiplication and an addition are two."""
    return sum(_of(equation) for equation in jaxpr.eqns)


def _of(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    shapes: list[tuple[int, ...]] = [getattr(operand.aval, "shape", ()) for operand in equation.invars]
    made = prod(getattr(equation.outvars[0].aval, "shape", ())) if equation.outvars else 0
    if name == "dot_general":
        contracted = params["dimension_numbers"][0][0]
        return int(2 * made * prod(shapes[0][axis] for axis in contracted))
    if name == "conv_general_dilated":
        outputs = shapes[1][params["dimension_numbers"].rhs_spec[0]]
        return int(2 * made * prod(shapes[1]) // outputs)
    if name == CUDNN_ATTENTION:
        keys = shapes[1][1]
        return int(4 * made * keys)
    inside = [count(inner) for inner in _inner(params)]
    if name == "cond":
        return max(inside)
    return _times(name, params) * sum(inside)


def _times(name: str, params: dict[str, Any]) -> int:
    """How often what is inside an equation runs."""
    match name:
        case "scan":
            return int(params["length"])
        case "shard_map":
            return int(params["mesh"].size)
        case "pallas_call":
            return prod(params["grid_mapping"].grid)
        case _:
            return 1


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters."""
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(each, "jaxpr", each)
            if hasattr(inner, "eqns"):
                yield inner
