"""Replica groups: every form that XLA writes them in, as the one that Neuron's compiler reads.

A list of lists, a reshaped and transposed range, or axes of a mesh: newer XLA writes whichever it likes,
older XLA reads the first alone, in a field that newer XLA leaves empty, and takes an empty one for all
ranks.

Source: `CollectiveDeviceListProto`, `IotaReplicaGroupListProto` and `MeshAxesReplicaGroupListProto` of
OpenXLA.
"""

from __future__ import annotations

import math
from itertools import product

from ltxbuild.neuron.hlo import Instruction, InstructionField
from ltxbuild.neuron.wire import Field, encode, fields, numbers, packed

Groups = list[list[int]]
_I = InstructionField
FORMS = (_I.GROUPS, _I.DEVICE_LIST, _I.IOTA_GROUPS, _I.MESH_GROUPS)
"""Fields of an instruction that hold groups."""


def groups(instruction: Instruction) -> Groups:
    """Ranks that exchange with one another.

    Raises:
        ValueError: The form is one that isn't known, or there are no groups.
    """
    found: Groups = []
    for number, value in instruction.rest:
        if number in FORMS:
            assert isinstance(value, bytes)
            found += _READERS[number](value)
    if not found or not all(found):
        raise ValueError("it names no groups of ranks")
    return found


def legacy(found: Groups) -> list[Field]:
    """Groups as older XLA reads them."""
    return [(_I.GROUPS, encode([(1, packed(group))])) for group in found]


def _listed(data: bytes) -> Groups:
    """One `ReplicaGroup`."""
    return [[rank for _, value in fields(data) for rank in numbers(value)]]


def _device_list(data: bytes) -> Groups:
    """Listed groups, or a range."""
    found: Groups = []
    for number, value in fields(data):
        if number not in (1, 2) or not isinstance(value, bytes):
            raise ValueError(f"its groups of ranks have a form that is not known (field {number})")
        found += _listed(value) if number == 1 else _iota(value)
    return found


def _iota(data: bytes) -> Groups:
    """Ranks in order, laid out as `dims`, transposed by `permutation`, cut into rows."""
    parts: dict[int, list[int]] = {}
    for number, value in fields(data):
        parts.setdefault(number, []).extend(numbers(value))
    (rows,), (columns,), dims = parts[1], parts[2], parts[3]
    order = parts.get(4, list(range(len(dims))))
    strides = [math.prod(dims[axis + 1 :]) for axis in range(len(dims))]
    ranks = [
        sum(index * strides[axis] for index, axis in zip(place, order, strict=True))
        for place in product(*(range(dims[axis]) for axis in order))
    ]
    return [ranks[row * columns : (row + 1) * columns] for row in range(rows)]


def _mesh(data: bytes) -> Groups:
    """Ranks that differ along some whole axes of a mesh, which is numbered row-major."""
    sizes: list[int] = []
    along: list[int] = []
    for number, value in fields(data):
        parts = list(fields(value)) if isinstance(value, bytes) else []
        if number == 1 and all(part == 1 for part, _ in parts):
            sizes = [size for _, axis in parts if isinstance(axis, bytes) for size in _number(axis, 2)]
        elif number == 2 and all(part == 1 for part, _ in parts):
            along.append(next((index for _, index in parts if isinstance(index, int)), 0))
        else:
            raise ValueError(f"its groups of ranks have a form that is not known (field {number})")
    if not sizes or any(axis >= len(sizes) for axis in along):
        raise ValueError(f"its groups of ranks are along axes {along} of a mesh of sizes {sizes}")
    strides = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]

    def ranks(axes: list[int]) -> list[int]:
        places = product(*(range(0, sizes[axis] * strides[axis], strides[axis]) for axis in axes))
        return [sum(place) for place in places]

    across = [axis for axis in range(len(sizes)) if axis not in along]
    return [[start + step for step in ranks(along)] for start in ranks(across)]


def _number(data: bytes, field: int) -> list[int]:
    return [value for number, value in fields(data) if number == field and isinstance(value, int)]


_READERS = {_I.GROUPS: _listed, _I.DEVICE_LIST: _device_list, _I.IOTA_GROUPS: _iota, _I.MESH_GROUPS: _mesh}
