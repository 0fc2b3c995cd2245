"""Parameter tables: what a component's weights are called, how they are shaped and where they come from.

A table is the only tie between an official checkpoint, the sharding, the lowering and the memory plan.
Nothing in this module imports jax, so that plans and keys are made without it.

Example:
    >>> spec = ParamSpec("proj.weight", (4, 8), ("embed", None), ("model.proj.weight",))
    >>> spec.source_shape
    (4, 8)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

Axes = tuple[str | None, ...]
T = TypeVar("T")

EMBED = "embed"
"""Logical axis of the width of tokens: weights split along it are put together before they are used."""
PADDING = 64
"""Zeros behind each row of a padded weight: two lines of a cache, in bf16."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How one checkpoint tensor becomes ours: view it as `view`, then permute its axes.

    The checkpoint's own shape is given because the view may merge or split axes.
    """

    source_shape: tuple[int, ...]
    view: tuple[int, ...]
    permute: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """One parameter of a component.

    Attributes:
        name: Dotted path in the parameter tree, e.g. `blocks.attn1.to_q.weight`.
        shape: Our shape; several sources are stacked on a leading axis.
        axes: Logical axis per dimension (`heads`, `mlp`, `layers`, ...) or None; sharding profiles map them.
        sources: Official checkpoint keys, in stacking order.
        layout: Change of layout per source; None keeps the checkpoint's.
        storage: `weights` is stored in the recipe's precision; `float32` is rounded to that precision and
            stored widened (the vocoder computes in f32 over bf16-rounded weights).
        product: Whether `layers.linear` alone reads it, which takes rows with zeros behind them.
        padding: Zeros behind each row, which `shape` counts and the checkpoint doesn't have.
    """

    name: str
    shape: tuple[int, ...]
    axes: Axes
    sources: tuple[str, ...]
    layout: Layout | None = None
    storage: Literal["weights", "float32"] = "weights"
    product: bool = False
    padding: int = 0

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.shape):
            raise ValueError(f"{self.name}: {len(self.axes)} axes for shape {self.shape}")
        if len(self.sources) > 1 and self.shape[0] != len(self.sources):
            raise ValueError(f"{self.name}: {len(self.sources)} sources for shape {self.shape}")

    @property
    def stacked(self) -> bool:
        """Whether the sources are stacked on a leading axis (also true for a stack of one layer)."""
        return self.axes[:1] == ("layers",)

    @property
    def source_shape(self) -> tuple[int, ...]:
        """Shape that each checkpoint tensor must have."""
        if self.layout is not None:
            return self.layout.source_shape
        shape = self.shape[1:] if self.stacked else self.shape
        return (*shape[:-1], shape[-1] - self.padding) if self.padding else shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


ParamTable = tuple[ParamSpec, ...]


def linear(
    name: str, key: str, out_features: int, in_features: int, axes: Axes = (None, None), *, bias: bool = True
) -> ParamTable:
    """Specs of a linear layer, weight `[out, in]` and bias `[out]`.

    The bias is split as the rows of the weight are, but never along `EMBED`: it is too small to be gathered.
    """
    shape = (out_features, in_features)
    weight = ParamSpec(f"{name}.weight", shape, axes, (f"{key}.weight",), product=True)
    if not bias:
        return (weight,)
    rows = None if axes[0] == EMBED else axes[0]
    return weight, ParamSpec(f"{name}.bias", (out_features,), (rows,), (f"{key}.bias",))


def vector(name: str, key: str, size: int, axis: str | None = None) -> ParamTable:
    """Spec of a one-dimensional parameter."""
    return (ParamSpec(name, (size,), (axis,), (key,)),)


def stack(layers: Iterable[ParamTable]) -> ParamTable:
    """Stack the tables of equal layers on a leading `layers` axis (for `lax.scan`).

    Raises:
        ValueError: The layers differ in anything but their checkpoint keys.
    """
    stacked = []
    for specs in zip(*layers, strict=True):
        first = replace(specs[0], sources=())
        if any(replace(spec, sources=()) != first for spec in specs):
            raise ValueError(f"{first.name}: layers differ, cannot be stacked")
        shape, axes = (len(specs), *first.shape), ("layers", *first.axes)
        sources = tuple(key for spec in specs for key in spec.sources)
        stacked.append(replace(first, shape=shape, axes=axes, sources=sources))
    return tuple(stacked)


def prefixed(prefix: str, table: ParamTable) -> ParamTable:
    """The same table with `prefix.` before every name."""
    return tuple(replace(spec, name=f"{prefix}.{spec.name}") for spec in table)


def padded(table: ParamTable, aliasing: int) -> ParamTable:
    """The same table with zeros behind rows of `linear`'s weights whose length is a multiple of `aliasing`.

    A matrix product reads several rows of tokens side by side, which are as long as those of the weight.
    Rows that start in the same set of a cache drive each other out of it; zeros add nothing to a product.

    >>> [spec.shape for spec in padded(linear("up", "up", 8, 2048), 2048)]
    [(8, 2112), (8,)]
    """
    return tuple(
        replace(spec, shape=(*spec.shape[:-1], spec.shape[-1] + PADDING), padding=PADDING)
        if aliasing and spec.product and spec.shape[-1] % aliasing == 0
        else spec
        for spec in table
    )


def tree(flat: Mapping[str, T]) -> dict[str, object]:
    """Nest a flat `{"a.b.c": leaf}` mapping into `{"a": {"b": {"c": leaf}}}`.

    >>> tree({"a.w": 1, "a.b": 2})
    {'a': {'w': 1, 'b': 2}}
    """
    nested: dict[str, object] = {}
    for name, leaf in flat.items():
        node = nested
        *parents, last = name.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})  # type: ignore[assignment]
        node[last] = leaf
    return nested
