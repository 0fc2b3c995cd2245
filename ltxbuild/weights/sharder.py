"""Streaming weight sharder: official files in, one shared and one file per rank out.

Needs the memory of one checkpoint tensor, what LoRAs add to it, and one shard slice, at any model size.
Tensors are read from memory maps in the order they are written, so each byte is read once and written once
per rank that holds it.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltx_cache.blobref import BlobRef
from ltx_cache.store import Store
from ltx_run.distribution import index_of, part_of
from ltx_run.safetensors import ALIGNMENT, SafetensorsFile, header_bytes
from ltxbuild.model.params import ParamSpec, ParamTable
from ltxbuild.plan.profiles import device_count, partition
from ltxbuild.precision import ITEMSIZE, storage_dtype
from ltxbuild.weights.delta import Delta, delta, merged
from ltxbuild.weights.lora import Lora

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """What one output file holds: each parameter with the part of it that goes there."""

    params: tuple[tuple[ParamSpec, tuple[slice, ...]], ...]

    def header(self, precision: str) -> bytes:
        """The safetensors header of the file."""
        return header_bytes(
            ((spec.name, storage_dtype(spec, precision), _extent(slices)) for spec, slices in self.params), {}
        )


@dataclass(frozen=True, slots=True)
class ShardedWeights:
    """Result of sharding one component."""

    shared: BlobRef | None
    ranks: tuple[BlobRef, ...]


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


def shard(
    table: ParamTable,
    files: Mapping[str, Path],
    rules: Mapping[str, str],
    mesh: Mapping[str, int],
    precision: str,
    store: Store,
    progress: Callable[[int], None],
    loras: Sequence[Lora] = (),
) -> ShardedWeights:
    """Write the shard files of one component into the store.

    Args:
        table: The component's parameters.
        files: Checkpoint key to the file that holds it.
        rules: Logical axis to mesh axis.
        mesh: Mesh axes and sizes.
        precision: `bfloat16` or `float32`.
        store: Where the files go.
        progress: Called with the number of bytes just written.
        loras: Merged into the tensors on the way, in order.

    Raises:
        LtxError: A source file is damaged, or the store can't be written.
    """
    shared, ranks = shard_plans(table, rules, mesh, precision)
    sources = _Sources(files, loras, precision)
    shared_blobs = _write((shared,), sources, store, progress) if shared.params else (None,)
    rank_blobs = _write(ranks, sources, store, progress) if ranks else ()
    return ShardedWeights(shared_blobs[0], tuple(blob for blob in rank_blobs if blob))


def _write(
    plans: tuple[ShardPlan, ...],
    sources: _Sources,
    store: Store,
    progress: Callable[[int], None],
) -> tuple[BlobRef | None, ...]:
    """Write all files side by side, so that each checkpoint tensor is read once."""
    with ExitStack() as stack:
        writers = [stack.enter_context(store.writer()) for _ in plans]
        for writer, plan in zip(writers, plans, strict=True):
            writer.write(plan.header(sources.precision))
        for index, (spec, _) in enumerate(plans[0].params):
            for whole in sources.layers(spec):
                for writer, plan in zip(writers, plans, strict=True):
                    slices = plan.params[index][1]
                    part = np.ascontiguousarray(whole[slices[1:] if spec.stacked else slices])
                    writer.write(part.reshape(-1).view(np.uint8).data)
                    progress(part.nbytes)
                del whole, part  # else they would live on while the next one is merged
        return tuple(writer.commit() for writer in writers)


class _Sources:
    """The checkpoint's tensors with LoRAs merged, mapped file by file."""

    def __init__(self, files: Mapping[str, Path], loras: Sequence[Lora], precision: str) -> None:
        self.precision = precision
        self._files = files
        self._loras = loras
        self._maps: dict[Path, SafetensorsFile] = {}

    def layers(self, spec: ParamSpec) -> Iterator[Array]:
        """A parameter piece by piece: each layer of a stacked one, or the whole."""
        for key in spec.sources:
            yield convert(self._merged(key), spec, self.precision)
            self._release(self._files[key], key)

    def _merged(self, key: str) -> Array:
        """A tensor of the checkpoint as its file holds it, or with LoRAs in the recipe's precision."""
        tensor = self._file(self._files[key]).view(key)
        deltas = [self._delta(lora, *lora.targets[key]) for lora in self._loras if key in lora.targets]
        return merged(tensor, deltas, self.precision) if deltas else tensor

    def _delta(self, lora: Lora, down: str, up: str) -> Delta:
        file = self._file(lora.path)
        part = delta(file.view(down), file.view(up), lora.strength, self.precision)
        for key in (down, up):
            self._release(lora.path, key)
        return part

    def _file(self, path: Path) -> SafetensorsFile:
        if path not in self._maps:
            self._maps[path] = SafetensorsFile(path)
        return self._maps[path]

    def _release(self, path: Path, key: str) -> None:
        """Give back the mapped pages of a tensor; what the kernel caches is its own affair."""
        file = self._file(path)
        entry = file.header.entries[key]
        start = entry.start // mmap.PAGESIZE * mmap.PAGESIZE
        file.map.madvise(mmap.MADV_DONTNEED, start, entry.stop - start)


def convert(tensor: Array, spec: ParamSpec, precision: str) -> Array:
    """One checkpoint tensor in our layout and dtype.

    Rounds to the recipe's precision first; parameters stored in f32 are widened afterwards.
    """
    if spec.layout is not None:
        tensor = tensor.reshape(spec.layout.view).transpose(spec.layout.permute)
    rounded = tensor.astype(precision, copy=False)
    return rounded.astype(storage_dtype(spec, precision), copy=False)
