"""Arrays on the devices of a jaxlib client: put there, read back, copied.

Three rules keep jax out, which jaxlib would import on its own and which takes most of a second:

* arrays are never taken apart into single-device arrays, by no method of jaxlib's (`_arrays`,
  `disassemble_into_single_device_arrays`, numpy conversion): each of these asks jax for an aval. The one
  exception are results on accelerators of several hosts;
* results are read through DLPack, which hands out the first shard of an array in host memory; to reach
  another shard, the array is viewed with its devices in rotated order; what lies elsewhere is first copied
  to as many devices of the host;
* every array is made with an aval of our own (`Aval`): jaxlib only reads its attributes.

Example:
    >>> row = Row(cpu(1))
    >>> spec = Distribution.of((2, 3), "float32", (None, None), {})
    >>> row.put(np.ones((2, 3), np.float32), spec).numpy().sum()
    np.float32(6.0)
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltx_run.clients import _jax, cpu, xla
from ltx_run.distribution import Distribution
from ltx_run.dlpack import view
from ltx_run.errors import BundleInvalid, ProgramFailed

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Aval:
    """What jaxlib reads of an abstract value."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    weak_type: bool = False


class Tensor:
    """An array on the devices; its memory there is freed with the last reference.

    It has no `delete`: jaxlib's aborts the process while values that `numpy` gave out are in use.
    """

    def __init__(self, array: Any, distribution: Distribution, devices: Row) -> None:
        self.array = array
        self.distribution = distribution
        self._devices = devices

    def numpy(self) -> Array:
        """The values on the host, read-only; no copy on a CPU when every device holds the whole array.

        The values stay valid without the tensor; the memory is freed with the last of both.
        """
        self.wait()
        count, ranks = self.distribution.devices, self._devices.ranks(self.distribution.devices)
        if not self.distribution.replicated and len(ranks) < count:
            raise BundleInvalid(
                f"a result is split over {count} devices, of which this host has {len(ranks)}"
            )
        if self._devices.on_host:
            return self._read()
        if len(ranks) < count:
            return np.asarray(self.array._arrays[0])  # imports jax
        return self._on(self._devices.host).numpy()

    def _read(self) -> Array:
        ranks = range(1 if self.distribution.replicated else self.distribution.devices)
        return self.distribution.join([self._shard(rank) for rank in ranks])

    def lies(self, devices: Row, distribution: Distribution) -> bool:
        """Whether it lies on those devices in that way."""
        return self._devices is devices and self.distribution == distribution

    def _shard(self, rank: int) -> Array:
        array = self.array
        if rank:
            row = self._devices.row(self.distribution.devices)
            order = _jax.DeviceList((*row[rank:], *row[:rank]))
            rotated = _jax.GSPMDSharding(order, xla.HloSharding.replicate())
            array = _jax.reorder_shards(array, rotated, _jax.ArrayCopySemantics.REUSE_INPUT)
        capsule = _jax.buffer_to_dlpack_managed_tensor(array)
        return view(capsule, self.distribution.part_shape, self.distribution.dtype)

    def copy(self) -> Tensor:
        """The same values in memory of their own."""
        return self._on(self._devices)

    def _on(self, devices: Row) -> Tensor:
        """The same values on devices of another client, or copied on the same; each part goes to one."""
        count = self.distribution.devices
        sharding = devices.replicated(count) if devices is not self._devices else self.array._sharding
        with _placing(self.distribution):
            (copied,) = _jax.batched_copy_array_to_devices_with_sharding(
                [self.array], [devices.list(count)], [sharding], [_jax.ArrayCopySemantics.ALWAYS_COPY]
            )
        return Tensor(copied, self.distribution, devices)

    def wait(self) -> None:
        """Return when the values are there; an interrupt from the keyboard gets through meanwhile.

        Raises:
            ProgramFailed: The program that makes them failed.
        """
        pause = 0.0002
        while not self.array.is_ready():
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        try:
            self.array.block_until_ready()
        except Exception as error:
            raise ProgramFailed(f"a program failed on the device: {error}") from error


class Row:
    """The devices of one client: rank r of a program runs on device r.

    Where several processes share a mesh, a program spans the devices of all of them, or runs on this
    process's own, in every process for itself.

    Attributes:
        on_host: Whether their memory is the host's.
        memory: Bytes of each device's own memory; None on the host, or if a platform doesn't say.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._local = tuple(client.local_devices())
        self._all = tuple(sorted(client.devices(), key=lambda device: device.id))
        self.on_host = client.platform == "cpu"
        stats = {} if self.on_host else self._local[0].memory_stats() or {}
        self.memory: int | None = stats.get("bytes_limit")

    @cached_property
    def host(self) -> Row:
        """As many devices of the host, for what is read here."""
        return Row(cpu(len(self._local)))

    def row(self, count: int) -> tuple[Any, ...]:
        """The devices of a program that spans so many."""
        return (self._local if count <= len(self._local) else self._all)[:count]

    def ranks(self, count: int) -> tuple[int, ...]:
        """Those ranks of such a program that are this process's."""
        local = {device.id for device in self._local}
        return tuple(rank for rank, device in enumerate(self.row(count)) if device.id in local)

    def list(self, count: int) -> Any:
        """The devices of such a program as jaxlib's list."""
        return _jax.DeviceList(self.row(count))

    def replicated(self, count: int) -> Any:
        """Sharding of an array that each of them holds whole."""
        return _jax.GSPMDSharding(self.list(count), xla.HloSharding.replicate())

    def put(self, whole: Array, distribution: Distribution, sharding: Any = None) -> Tensor:
        """A host array on the devices, not copied where alignment allows: it must not change afterwards."""
        parts = distribution.split(whole)
        ranks = self.ranks(distribution.devices)
        return self.put_parts([parts[rank] for rank in ranks], distribution, sharding)

    def put_parts(self, parts: Sequence[Array], distribution: Distribution, sharding: Any = None) -> Tensor:
        """One host array per rank of this process, not copied where alignment allows.

        Args:
            parts: Part of each rank; they must not change afterwards.
            distribution: What the parts are parts of.
            sharding: The program's own sharding; None for an array that every device holds whole.

        Raises:
            ProgramFailed: The devices don't take it, such as for want of memory.
        """
        count = distribution.devices
        row = self.row(count)
        given = [np.ascontiguousarray(part) for part in parts]
        with _placing(distribution):
            array = _jax.batched_device_put(
                Aval(distribution.shape, distribution.dtype),
                sharding or self.replicated(count),
                given,
                [row[rank] for rank in self.ranks(count)],
                True,
                enable_x64=False,
            )
        return Tensor(array, distribution, self)


@contextmanager
def _placing(distribution: Distribution) -> Iterator[None]:
    """What jaxlib fails with while a tensor goes to devices becomes an error of ours."""
    try:
        yield
    except Exception as error:
        what = f"{distribution.dtype}{list(distribution.shape)}"
        raise ProgramFailed(
            f"a tensor {what} can't be put on the devices: {error}",
            hint="if their memory is short, look for other processes that use it",
        ) from error


def sharding_of(distribution: Distribution) -> Any:
    """How XLA describes a distribution: tiles in row-major order, and the ranks that hold each of them."""
    if distribution.replicated:
        return xla.HloSharding.replicate()
    counts, sizes = distribution.counts, distribution.part_shape

    def tile(rank: int) -> tuple[int, ...]:
        return tuple(start // size for (start, _), size in zip(distribution.parts[rank], sizes, strict=True))

    holders = distribution.devices // math.prod(counts)
    proto = xla.OpSharding()
    proto.type = xla.OpSharding.Type.OTHER
    proto.tile_assignment_dimensions = [*counts, *([holders] if holders > 1 else [])]
    proto.tile_assignment_devices = sorted(range(distribution.devices), key=tile)
    proto.replicate_on_last_tile_dim = holders > 1
    return xla.HloSharding.from_proto(proto)
