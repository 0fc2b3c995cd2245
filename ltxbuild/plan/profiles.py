"""Sharding profiles: how logical axes of the weights map to mesh axes. To add one, touch this file only.

A profile names the mesh axes it uses and, for each logical axis of a parameter table, the mesh axis that
splits it. Logical axes it doesn't name stay whole on every device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ltxbuild.errors import RecipeError
from ltxbuild.model.params import ParamSpec, ParamTable


@dataclass(frozen=True, slots=True)
class Profile:
    """One sharding profile.

    Attributes:
        mesh_axes: Mesh axes in order, slowest first; devices are numbered row-major.
        rules: Logical axis to mesh axis.
        why: One sentence for people who choose.
    """

    mesh_axes: tuple[str, ...]
    rules: Mapping[str, str]
    why: str


_BY_HEADS = MappingProxyType({"heads": "tp", "mlp": "tp"})

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "single": Profile((), MappingProxyType({}), "one device holds everything"),
        "trn2": Profile(("tp",), _BY_HEADS, "Trainium2: heads and feed-forward split, the rest replicated"),
        "hopper": Profile(("tp",), _BY_HEADS, "H100/H200: heads and feed-forward split over NVLink"),
        "ironwood": Profile(("tp",), _BY_HEADS, "TPU v7: one axis by heads, 192 GB a chip leaves room"),
        "trillium": Profile(("tp",), _BY_HEADS, "TPU v6e: one axis by heads"),
    }
)


def mesh_shape(profile_name: str, tensor_parallel: int) -> dict[str, int]:
    """Mesh axes and sizes of a profile at a tensor-parallel degree.

    Raises:
        RecipeError: The profile has no axis to split over.
    """
    axes = PROFILES[profile_name].mesh_axes
    if not axes:
        if tensor_parallel != 1:
            raise RecipeError(
                f"target.tensor_parallel is {tensor_parallel}, but profile 'single' uses one device",
                hint=f"choose one of the profiles {', '.join(n for n in PROFILES if n != 'single')}",
            )
        return {}
    return {axes[0]: tensor_parallel}


def partition(spec: ParamSpec, rules: Mapping[str, str]) -> tuple[str | None, ...]:
    """Mesh axis per dimension of a parameter."""
    return tuple(rules.get(axis) if axis is not None else None for axis in spec.axes)


def check_divides(table: ParamTable, rules: Mapping[str, str], mesh: Mapping[str, int]) -> None:
    """Refuse a profile that would split an axis unevenly.

    Raises:
        RecipeError: Lists the first axis that doesn't divide and the degrees that would.
    """
    for spec in table:
        for size, axis in zip(spec.shape, partition(spec, rules), strict=True):
            if axis is not None and size % mesh[axis]:
                degrees = [d for d in (1, 2, 4, 8, 16, 32) if size % d == 0]
                raise RecipeError(
                    f"{spec.name} has {size} along mesh axis '{axis}', which {mesh[axis]} does not divide",
                    hint=f"use target.tensor_parallel of {', '.join(map(str, degrees))}",
                )


def shard_slices(
    shape: tuple[int, ...], spec: tuple[str | None, ...], mesh: Mapping[str, int], rank: int
) -> tuple[slice, ...]:
    """The part of a tensor that a rank holds; ranks number the mesh row-major.

    >>> shard_slices((8, 6), ("tp", None), {"tp": 4}, 1)
    (slice(2, 4, None), slice(0, 6, None))
    """
    position = {}
    for axis, size in reversed(tuple(mesh.items())):
        rank, position[axis] = divmod(rank, size)
    slices = []
    for length, split in zip(shape, spec, strict=True):
        step = length // mesh[split] if split else length
        start = step * position[split] if split else 0
        slices.append(slice(start, start + step))
    return tuple(slices)


def device_count(mesh: Mapping[str, int]) -> int:
    """Devices in a mesh; an empty mesh is one device."""
    return math.prod(mesh.values())
