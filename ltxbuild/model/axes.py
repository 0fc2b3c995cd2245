"""Where arrays lie inside a program: logical axes, which the layout in force maps to mesh axes.

Model code names axes (`tokens`, `heads`, ...) and never a mesh. Without a layout, or where it doesn't split
an axis, every function here leaves its arrays as they are: one definition serves any number of devices.

Example:
    >>> place(1.0, "tokens"), total([2.0], "heads")
    (1.0, [2.0])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltxbuild.model.params import Axes, ParamTable, tree

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Layout:
    """A mesh, and the mesh axis of each logical axis that is split."""

    mesh: Mesh
    rules: Mapping[str, str]

    def spec(self, axes: Axes) -> PartitionSpec:
        """Mesh axis per dimension."""
        names = (self.rules.get(axis) if axis else None for axis in axes)
        return PartitionSpec(*names)  # type: ignore[no-untyped-call]


_LAYOUT: ContextVar[Layout | None] = ContextVar("layout", default=None)


@contextmanager
def laid_out(layout: Layout) -> Iterator[None]:
    """Trace under a layout; one that splits nothing is none."""
    token = _LAYOUT.set(layout if layout.rules else None)
    try:
        yield
    finally:
        _LAYOUT.reset(token)


def place(x: Array, *axes: str | None) -> Array:
    """`x` with its dimensions split as the layout says of `axes`; None for a dimension that stays whole."""
    layout = _LAYOUT.get()
    if layout is None:
        return x
    sharding = NamedSharding(layout.mesh, layout.spec(axes))
    placed: Array = lax.with_sharding_constraint(x, sharding)  # type: ignore[no-untyped-call]
    return placed


def gather(params: Mapping[str, Any], table: ParamTable, axis: str) -> Mapping[str, Any]:
    """Weights put together along a logical axis that only saves memory: no product is split by it.

    Args:
        params: Tree of `table`.
        table: Where each weight lies.
        axis: The logical axis.
    """
    layout = _LAYOUT.get()
    if layout is None or axis not in layout.rules:
        return params
    axes = tree({spec.name: tuple(None if name == axis else name for name in spec.axes) for spec in table})
    gathered: Mapping[str, Any] = jax.tree.map(lambda leaf, names: place(leaf, *names), params, axes)
    return gathered


def on_each_device(function: Callable[..., T], arguments: Sequence[Axes], result: Axes) -> Callable[..., T]:
    """A function that each device runs on its own parts, with no exchange but those it asks for.

    Args:
        function: Takes and returns parts; uses `total` and `whole` to exchange.
        arguments: Logical axes of each positional argument; they hold for all arrays of a tuple, and for
            none if the argument is None.
        result: Logical axes of the result.
    """
    layout = _LAYOUT.get()
    if layout is None:
        return function
    specs = tuple(layout.spec(axes) for axes in arguments)
    return jax.shard_map(
        function, mesh=layout.mesh, in_specs=specs, out_specs=layout.spec(result), check_vma=False
    )


def total(parts: Sequence[Array], axis: str) -> Sequence[Array]:
    """Sums over the devices that a logical axis is split over, in one exchange; inside `on_each_device`.

    Args:
        parts: Arrays of one dtype that differ in their second dimension only.
        axis: The logical axis.
    """
    name = _mesh_axis(axis)
    if name is None:
        return parts
    ends = [0]
    for part in parts:
        ends.append(ends[-1] + part.shape[1])
    sums = lax.psum(jnp.concatenate(parts, axis=1), name)  # type: ignore[no-untyped-call]
    return jnp.split(sums, ends[1:-1], axis=1)


def whole(x: Array, axis: str | None, dimension: int) -> Array:
    """An array of which each device has a part along `dimension`, put together; inside `on_each_device`."""
    name = _mesh_axis(axis)
    return x if name is None else lax.all_gather(x, name, axis=dimension, tiled=True)


def _mesh_axis(axis: str | None) -> str | None:
    layout = _LAYOUT.get()
    return layout.rules.get(axis) if layout and axis else None
