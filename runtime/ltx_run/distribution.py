"""How an array lies on the devices of a program: which part each rank holds.

Example:
    >>> halves = Distribution.of((4, 6), "float32", ("tp", None), {"tp": 2})
    >>> halves.parts
    (((0, 2), (0, 6)), ((2, 4), (0, 6)))
    >>> halves.counts
    (2, 1)

Law: `d.join(d.split(array))` equals `array`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ltx_run.errors import BundleInvalid

if TYPE_CHECKING:
    from ltx_run.bundle import TensorSpec

Array = NDArray[Any]
Part = tuple[tuple[int, int], ...]
"""Per axis the first index and one past the last."""

DTYPES: Mapping[str, np.dtype[Any]] = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    **{name: np.dtype(name) for name in ("float32", "float16", "int32", "uint32", "int8", "uint8", "bool")},
}
"""Dtypes that programs and plans may name."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Parts of an array per rank.

    Attributes:
        shape: Of the whole array.
        dtype: Its dtype.
        parts: What each rank holds.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    parts: tuple[Part, ...]

    @classmethod
    def of(
        cls, shape: tuple[int, ...], dtype: str, spec: Sequence[str | None], mesh: Mapping[str, int]
    ) -> Distribution:
        """The distribution that a spec means on a mesh; ranks number the mesh row-major.

        Raises:
            ValueError: The spec doesn't fit the shape or the mesh, or the dtype is unknown.
        """
        unknown = [axis for axis in spec if axis is not None and axis not in mesh]
        if dtype not in DTYPES or len(spec) != len(shape) or unknown:
            raise ValueError(f"{dtype}{list(shape)} can't be laid out as {list(spec)} on mesh {dict(mesh)}")
        counts = [mesh[axis] if axis else 1 for axis in spec]
        if any(length % count for length, count in zip(shape, counts, strict=True)):
            raise ValueError(f"{list(shape)} can't be split evenly into {counts}")
        ranks = range(math.prod(mesh.values()))
        return cls(shape, DTYPES[dtype], tuple(part_of(shape, spec, mesh, rank) for rank in ranks))

    @property
    def devices(self) -> int:
        """Number of ranks."""
        return len(self.parts)

    @property
    def replicated(self) -> bool:
        """Whether every rank holds the whole array."""
        return all(part == self.parts[0] for part in self.parts)

    @property
    def part_shape(self) -> tuple[int, ...]:
        """Shape of one rank's part."""
        return tuple(stop - start for start, stop in self.parts[0])

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of parts along each axis."""
        return tuple(
            length // part if part else 1 for length, part in zip(self.shape, self.part_shape, strict=True)
        )

    def split(self, whole: Array) -> list[Array]:
        """Views of a whole array, one per rank."""
        return [whole[index_of(part)] for part in self.parts]

    def join(self, parts: Sequence[Array]) -> Array:
        """The whole array from its parts; no copy when every rank holds all of it."""
        if self.replicated:
            return parts[0]
        whole = np.empty(self.shape, self.dtype)
        for place, values in zip(self.parts, parts, strict=True):
            whole[index_of(place)] = values
        return whole


def distributions(name: str, specs: Sequence[TensorSpec], mesh: Mapping[str, int]) -> list[Distribution]:
    """How the parameters or results of a program lie.

    Raises:
        BundleInvalid: One doesn't fit its mesh; the program's name is in the message.
    """
    try:
        return [Distribution.of(spec.shape, spec.dtype, spec.spec, mesh) for spec in specs]
    except ValueError as error:
        raise BundleInvalid(f"program {name}: {error}") from None


def index_of(part: Part) -> tuple[slice, ...]:
    """A part as an index into the whole array."""
    return tuple(slice(start, stop) for start, stop in part)


def part_of(shape: tuple[int, ...], spec: Sequence[str | None], mesh: Mapping[str, int], rank: int) -> Part:
    """What a rank holds of an array whose split axes divide evenly; ranks number the mesh row-major.

    >>> part_of((8, 6), ("tp", None), {"tp": 4}, 1)
    ((2, 4), (0, 6))
    """
    position = {}
    for axis, size in reversed(list(mesh.items())):
        rank, position[axis] = divmod(rank, size)
    part = []
    for length, name in zip(shape, spec, strict=True):
        step = length // mesh[name] if name else length
        start = step * position[name] if name else 0
        part.append((start, start + step))
    return tuple(part)
