"""Weight sets on disk: shared and per-rank safetensors files, mapped, read ahead and let go.

Nothing is read until it is used. A view of a mapped file whose data is aligned to 64 bytes becomes device
memory without a copy, so on a CPU the weights of a program are never in memory twice, and the kernel can drop
their pages when something else needs the room.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ltx_run.bundle import WeightInput
from ltx_run.distribution import Distribution
from ltx_run.errors import BundleInvalid
from ltx_run.safetensors import SafetensorsFile

Array = NDArray[Any]

CHUNK = 64 << 20
"""Bytes asked of the kernel at a time, so that reading ahead stops soon when it is told to."""


class Place(NamedTuple):
    """Bytes of a file: its path, where they start, how many they are."""

    path: str
    start: int
    size: int


class Weights:
    """The files of one weight set, as far as this process needs them."""

    def __init__(self, name: str, shared: Path | None, ranks: Mapping[int, Path]) -> None:
        """Map the files.

        Args:
            name: Of the weight set.
            shared: File of what every rank holds whole.
            ranks: Files of those ranks that are this process's.

        Raises:
            SafetensorsError: A file is damaged.
        """
        self._name = name
        self._shared = SafetensorsFile(shared) if shared else None
        self._ranks = {rank: SafetensorsFile(path) for rank, path in ranks.items()}

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(len(file.map) for file in self._files())

    def parts(
        self, weight: WeightInput, distribution: Distribution, ranks: Iterable[int] | None = None
    ) -> list[Array]:
        """Each rank's part of a parameter, as views of the files.

        Args:
            weight: The parameter.
            distribution: How it lies.
            ranks: Whose parts; None for those of all ranks.

        Raises:
            BundleInvalid: The files don't hold the parameter in that form.
        """
        wanted = range(distribution.devices) if ranks is None else ranks
        return [self._part(self._holder(weight, rank), weight, distribution) for rank in wanted]

    def places(self, weight: WeightInput, distribution: Distribution) -> list[Place]:
        """Where each rank's part of a parameter is, for readers in other processes.

        Raises:
            BundleInvalid: See `parts`.
        """
        places = []
        for rank in range(distribution.devices):
            file = self._holder(weight, rank)
            part = self._part(file, weight, distribution)
            start = file.header.entries[weight.name].start + (weight.layer or 0) * part.nbytes
            places.append(Place(str(file.path), start, part.nbytes))
        return places

    def _holder(self, weight: WeightInput, rank: int) -> SafetensorsFile:
        """The file that has a rank's part."""
        if self._shared is not None and weight.name in self._shared.header.entries:
            return self._shared
        if rank in self._ranks:
            return self._ranks[rank]
        message = f"has no file of rank {rank}, which needs {weight.name}"
        raise BundleInvalid(f"weight set {self._name} {message}")

    def _part(self, file: SafetensorsFile, weight: WeightInput, distribution: Distribution) -> Array:
        if weight.name not in file.header.entries:
            raise BundleInvalid(f"weight set {self._name} has no tensor {weight.name}")
        array = file.view(weight.name)
        if weight.layer is not None:
            array = array[weight.layer]
        if array.shape != distribution.part_shape or array.dtype != distribution.dtype:
            found, needed = (
                f"{array.dtype}{list(array.shape)}",
                f"{weight.dtype}{list(distribution.part_shape)}",
            )
            raise BundleInvalid(f"weight set {self._name} holds {weight.name} as {found}, needed is {needed}")
        return array

    def read_ahead(self, stop: threading.Event) -> None:
        """Ask the kernel to read the files into its cache."""
        for file in self._files():
            for start in range(0, len(file.map), CHUNK):
                if stop.is_set():
                    return
                file.map.madvise(mmap.MADV_WILLNEED, start, min(CHUNK, len(file.map) - start))

    def release(self) -> None:
        """Let the kernel drop this process's pages; the page cache keeps what it likes."""
        for file in self._files():
            file.map.madvise(mmap.MADV_DONTNEED)

    def _files(self) -> list[SafetensorsFile]:
        return [*self._ranks.values(), *([self._shared] if self._shared else [])]


def available_memory() -> int:
    """Bytes that can be filled without pushing anything out; half of the memory on systems that don't say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
