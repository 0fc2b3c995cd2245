"""What each file of sharded weights holds: one file of what is whole everywhere, and one for each rank."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ltx_run.distribution import index_of, part_of
from ltx_run.safetensors import ALIGNMENT, header_bytes
from ltxbuild.model.params import ParamSpec, ParamTable
from ltxbuild.plan.profiles import device_count, partition
from ltxbuild.precision import ITEMSIZE, storage_dtype


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """What one output file holds: each parameter with the part of it that goes there."""

    params: tuple[tuple[ParamSpec, tuple[slice, ...]], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in the order of the file."""
        return tuple(spec.name for spec, _ in self.params)

    def header(self, precision: str) -> bytes:
        """The safetensors header of the file."""
        return header_bytes(
            ((spec.name, storage_dtype(spec, precision), _extent(slices)) for spec, slices in self.params), {}
        )


def shard_plans(
    table: ParamTable, rules: Mapping[str, str], mesh: Mapping[str, int], precision: str
) -> tuple[ShardPlan, tuple[ShardPlan, ...]]:
    """Content of the shared file and of each rank's file.

    Parameters whose bytes are a multiple of the alignment come first, so that all of those are aligned.
    """
    whole: list[ParamSpec] = []
    split: list[ParamSpec] = []
    for spec in table:
        (split if any(partition(spec, rules)) else whole).append(spec)

    def plan(specs: list[ParamSpec], rank: int) -> ShardPlan:
        parts = [(spec, index_of(part_of(spec.shape, partition(spec, rules), mesh, rank))) for spec in specs]
        parts.sort(key=lambda part: _bytes(part, precision) % ALIGNMENT != 0)
        return ShardPlan(tuple(parts))

    ranks = range(device_count(mesh)) if split else range(0)
    return plan(whole, 0), tuple(plan(split, rank) for rank in ranks)


def _extent(slices: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(s.stop - s.start for s in slices)


def _bytes(part: tuple[ParamSpec, tuple[slice, ...]], precision: str) -> int:
    spec, slices = part
    return math.prod(_extent(slices)) * ITEMSIZE[storage_dtype(spec, precision)]
