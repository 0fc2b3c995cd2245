"""Streaming weight sharder: official files in, one shared and one file per rank out.

Needs the memory of one checkpoint tensor, what LoRAs add to it, and a few shard slices, at any model size.
Tensors are read from memory maps in the order they are written. Two files are written at a time: of a tensor
that is cut by rows each byte is still read once, and what is finished when a build is interrupted need not be
done again. Where LoRAs are merged all files are written side by side: merging takes longer than writing.
"""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltx_cache.blobref import BlobRef
from ltx_cache.key import Factor, Key
from ltx_cache.store import Hit, Store
from ltx_cache.writer import BlobWriter
from ltx_run.safetensors import SafetensorsFile
from ltxbuild.model.params import ParamSpec, ParamTable
from ltxbuild.precision import storage_dtype
from ltxbuild.weights.delta import Delta, delta, merged
from ltxbuild.weights.lora import Lora
from ltxbuild.weights.shard_plan import ShardPlan, shard_plans

Array = NDArray[Any]

TOGETHER = 2
"""Files written side by side: more read tensors that are cut by columns less often, and finish later."""


@dataclass(frozen=True, slots=True)
class ShardedWeights:
    """Result of sharding one component."""

    shared: BlobRef | None
    ranks: tuple[BlobRef, ...]


def shard(
    table: ParamTable,
    files: Mapping[str, Path],
    rules: Mapping[str, str],
    mesh: Mapping[str, int],
    precision: str,
    store: Store,
    progress: Callable[[int], None],
    loras: Sequence[Lora] = (),
    key: Key | None = None,
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
        key: Of the result; files that an interrupted call with it has finished are taken. None starts over.

    Raises:
        LtxError: A source file is damaged, or the store can't be written.
    """
    shared, ranks = shard_plans(table, rules, mesh, precision)
    plans: list[ShardPlan] = [shared] if shared.params else []
    for plan in ranks:  # several ranks may hold the same
        if plan not in plans:
            plans.append(plan)
    finished = _Finished(store, key)
    blobs = {number: blob for number in range(len(plans)) if (blob := finished.find(number))}
    for blob in blobs.values():
        progress(blob.size)
    sources = _Sources(files, loras, precision)
    for group in _groups(plans, blobs.keys(), together=len(plans) if loras else TOGETHER):
        made = _write([plans[number] for number in group], sources, store, progress)
        blobs |= dict(zip(group, made, strict=True))
        for number in group:
            finished.keep(number, blobs[number])
    return ShardedWeights(
        blobs[0] if shared.params else None, tuple(blobs[plans.index(plan)] for plan in ranks)
    )


class _Finished:
    """Finished files of one key, by their number in the order of plans."""

    def __init__(self, store: Store, key: Key | None) -> None:
        self._store, self._key = store, key

    def find(self, number: int) -> BlobRef | None:
        if self._key is None:
            return None
        match self._store.lookup(self._file(self._key, number)):
            case Hit(blobs=(blob,)):
                return blob
        return None

    def keep(self, number: int, blob: BlobRef) -> None:
        if self._key is not None:
            self._store.put_entry(self._file(self._key, number), None, [blob])

    @staticmethod
    def _file(key: Key, number: int) -> Key:
        return Key("shard", (*key.factors, Factor("file", number)))


def _groups(plans: Sequence[ShardPlan], done: Collection[int], together: int) -> Iterator[list[int]]:
    """Numbers of the files to write side by side; files of one group hold parts of the same tensors."""
    missing = [number for number in range(len(plans)) if number not in done]
    for _, alike in itertools.groupby(missing, lambda number: plans[number].names):
        rest = list(alike)
        for start in range(0, len(rest), together):
            yield rest[start : start + together]


def _write(
    plans: Sequence[ShardPlan], sources: _Sources, store: Store, progress: Callable[[int], None]
) -> list[BlobRef]:
    """Write files that hold parts of the same tensors, tensor by tensor, each in a thread of its own."""
    precision = sources.precision
    with ExitStack() as stack:
        writers = [stack.enter_context(store.writer()) for _ in plans]
        threads = stack.enter_context(ThreadPoolExecutor(TOGETHER))  # they end before the writers do
        for writer, plan in zip(writers, plans, strict=True):
            writer.write(plan.header(precision))
        for index, (spec, _) in enumerate(plans[0].params):
            cuts = [plan.params[index][1][spec.stacked :] for plan in plans]
            for whole in sources.layers(spec):
                append = partial(_append, whole, spec, precision)
                for written in threads.map(append, cuts, writers):
                    progress(written)
                del whole, append  # else the tensor would live on while the next one is merged
        return [writer.commit() for writer in writers]


def _append(whole: Array, spec: ParamSpec, precision: str, cut: tuple[slice, ...], writer: BlobWriter) -> int:
    """Write a part of a tensor; returns its bytes."""
    part = rounded(whole[cut], spec, precision)
    own = part.flags.owndata  # else its pages, hashed later, would come back and stay
    return writer.write(part.reshape(-1).view(np.uint8).data, given=own)


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
            yield arranged(self._merged(key), spec)
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


def arranged(tensor: Array, spec: ParamSpec) -> Array:
    """One checkpoint tensor in our layout, as a view."""
    if spec.layout is None:
        return tensor
    return tensor.reshape(spec.layout.view).transpose(spec.layout.permute)


def rounded(part: Array, spec: ParamSpec, precision: str) -> Array:
    """A part of a tensor in our dtype, contiguous, with the zeros behind its rows.

    Rounds to the recipe's precision first; parameters stored in f32 are widened afterwards.
    """
    values = part.astype(precision, copy=False).astype(storage_dtype(spec, precision), copy=False)
    if spec.padding:
        values = np.pad(values, ((0, 0), (0, spec.padding)))
    return np.ascontiguousarray(values)
