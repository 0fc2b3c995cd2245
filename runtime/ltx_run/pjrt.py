"""Executing PJRT executables with jaxlib alone: no jax, no tracing, no pickle.

Everything that touches jaxlib's private interface is here and in `ltx_run.clients`. Three rules keep jax out,
which jaxlib would import on its own and which takes most of a second:

* arrays are never taken apart into single-device arrays, by no method of jaxlib's (`_arrays`,
  `disassemble_into_single_device_arrays`, numpy conversion): each of these asks jax for an aval;
* results are read through DLPack, which hands out the first shard of an array in host memory; to reach
  another shard, the array is viewed with its devices in rotated order; what lies elsewhere is first copied
  to as many devices of the host;
* every array is made with an aval of our own (`_Aval`): jaxlib only reads its attributes.

Example:
    >>> devices = Devices(cpu(1))
    >>> spec = Distribution.of((2, 3), "float32", (None, None), {})
    >>> devices.put(np.ones((2, 3), np.float32), spec).numpy().sum()
    np.float32(6.0)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ltx_run import devices as platform
from ltx_run.bundle import Program, WeightInput
from ltx_run.clients import _jax, cpu, xla
from ltx_run.distribution import Distribution, distributions
from ltx_run.dlpack import view
from ltx_run.errors import BundleInvalid, ProgramFailed
from ltx_run.weights import Weights

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Aval:
    """What jaxlib reads of an abstract value."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    weak_type: bool = False


class Tensor:
    """An array on the devices; its memory there is freed with the last reference.

    It has no `delete`: jaxlib's aborts the process while values that `numpy` gave out are in use.
    """

    def __init__(self, array: Any, distribution: Distribution, devices: Devices) -> None:
        self.array = array
        self.distribution = distribution
        self._devices = devices

    def numpy(self) -> Array:
        """The values on the host, read-only; no copy on a CPU when every device holds the whole array.

        The values stay valid without the tensor; the memory is freed with the last of both.
        """
        self.wait()
        count = self.distribution.devices
        if self._devices.memory is not None:
            return self._on(self._devices.host).numpy()
        ranks = self._devices.ranks(count)
        if not self.distribution.replicated and len(ranks) < count:
            raise BundleInvalid(f"a result is split over {count} devices, of which this process has {len(ranks)}")
        return self.distribution.join([self._shard(r) for r in ((0,) if self.distribution.replicated else ranks)])

    def lies(self, devices: Devices, distribution: Distribution) -> bool:
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

    def _on(self, devices: Devices) -> Tensor:
        """The same values on devices of another client, or copied on the same; each part goes to one."""
        count = self.distribution.devices
        sharding = devices.replicated(count) if devices is not self._devices else self.array._sharding
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


class Devices:
    """The devices of one client: rank r of a program runs on device r.

    Where several processes share a mesh, a program spans the devices of all of them, or runs on this
    process's own, in every process for itself.

    Attributes:
        memory: Bytes of each device's own memory; None on the host.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._local = tuple(client.local_devices())
        self._all = tuple(sorted(client.devices(), key=lambda device: device.id))
        self.memory: int | None = None
        if client.platform != "cpu":
            self.memory = self._local[0].memory_stats()["bytes_limit"]

    @cached_property
    def host(self) -> Devices:
        """As many devices of the host, for what is read here."""
        return Devices(cpu(len(self._local)))

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
        """
        count = distribution.devices
        row = self.row(count)
        array = _jax.batched_device_put(
            _Aval(distribution.shape, distribution.dtype),
            sharding or self.replicated(count),
            [np.ascontiguousarray(part) for part in parts],
            [row[rank] for rank in self.ranks(count)],
            True,
            enable_x64=False,
        )
        return Tensor(array, distribution, self)

    def load(self, name: str, program: Program, code: bytes) -> Executable:
        """Make a serialized executable ready to run.

        The caller has verified the digest of `code` and the fingerprint: code of another machine crashes.

        Raises:
            BundleInvalid: The executable can't be loaded, or contradicts the program's record.
        """
        count = program.fingerprint.devices
        try:
            loaded = self._client.deserialize_executable(code, self.list(count), self._options(count))
        except Exception as error:
            raise BundleInvalid(f"program {name}: the executable can't be loaded: {error}") from error
        return Executable(name, program, loaded, self)

    def _options(self, count: int) -> Any:
        """What says which device each rank has, where it isn't the device of that number."""
        numbers = [device.id for device in self.row(count)]
        if numbers == list(range(count)):
            return None
        options = xla.CompileOptions()
        options.num_partitions = count
        options.device_assignment = xla.DeviceAssignment.create(np.array([numbers]))
        return options


class Executable:
    """A loaded program.

    Attributes:
        inputs: Distribution of each parameter.
        outputs: Distribution of each result.
    """

    def __init__(self, name: str, program: Program, loaded: Any, devices: Devices) -> None:
        self.name = name
        self._loaded = loaded
        self._devices = devices
        self._count = program.fingerprint.devices
        self.inputs = distributions(name, program.inputs, dict(program.mesh))
        self.outputs = distributions(name, program.outputs, dict(program.mesh))
        if any(record.devices != self._count for record in (*self.inputs, *self.outputs)):
            message = f"spans {self._count} devices, its mesh {dict(program.mesh)} doesn't"
            raise BundleInvalid(f"program {name} {message}")
        self._input_shardings = self._shardings(self.inputs, loaded.get_parameter_shardings(), "inputs")
        outputs = self._shardings(self.outputs, loaded.get_output_shardings(), "outputs")
        self._check_count("inputs", self.inputs, loaded.get_parameter_layouts())
        self._check_count("outputs", self.outputs, loaded.get_output_layouts())
        self._handlers = [
            _jax.array_result_handler(_Aval(d.shape, d.dtype), sharding, True, True)
            for d, sharding in zip(self.outputs, outputs, strict=True)
        ]

    def argument(self, index: int, value: platform.Tensor | Array) -> Tensor:
        """A value as parameter number `index`; a tensor that lies as the program takes it is not copied."""
        if isinstance(value, Tensor) and value.lies(self._devices, self.inputs[index]):
            return value
        if not isinstance(value, np.ndarray):
            value = value.numpy()
        return self._devices.put(value, self.inputs[index], self._input_shardings[index])

    def put_parts(self, index: int, parts: Sequence[Array]) -> Tensor:
        """One host array per rank of this process as parameter number `index`."""
        return self._devices.put_parts(parts, self.inputs[index], self._input_shardings[index])

    def put_weight(self, index: int, record: WeightInput, files: Weights) -> Tensor:
        """A weight as parameter number `index`, not copied where alignment allows."""
        return self.put_parts(index, files.parts(record, self.inputs[index], self._devices.ranks(self._count)))

    def warm_up(self, weights: Mapping[int, platform.Tensor]) -> None:
        """Nothing: `load` has made everything ready."""

    def execute(self, arguments: Sequence[platform.Tensor]) -> list[Tensor]:
        """Start the program and return its results, which may not be there yet: wait for one before use.

        Arguments lie as `inputs` says; donated ones are gone afterwards.

        Raises:
            ProgramFailed: The program could not be started.
        """
        try:
            results = self._loaded.execute_sharded([cast(Tensor, given).array for given in arguments])
            arrays = results.consume_with_handlers(self._handlers)
        except Exception as error:
            raise ProgramFailed(f"program {self.name} failed: {error}") from error
        pairs = zip(arrays, self.outputs, strict=True)
        return [Tensor(array, distribution, self._devices) for array, distribution in pairs]

    def _shardings(self, records: Sequence[Distribution], protos: Any, what: str) -> list[Any]:
        """The executable's own shardings, checked against the records."""
        if protos is None:
            return [self._devices.replicated(self._count)] * len(records)
        self._check_count(what, records, protos)
        shardings = [xla.HloSharding.from_proto(proto) for proto in protos]
        for record, sharding in zip(records, shardings, strict=True):
            dimensions = sharding.tile_assignment_dimensions() if sharding.is_tiled() else ()
            counts = tuple(dimensions[: len(record.shape)]) or (1,) * len(record.shape)
            if counts != record.counts:
                message = f"splits its {what} as {counts}, the manifest says {record.counts}"
                raise BundleInvalid(f"program {self.name}: the executable {message}")
        return [_jax.GSPMDSharding(self._devices.list(self._count), sharding) for sharding in shardings]

    def _check_count(self, what: str, records: Sequence[Distribution], found: Sequence[Any]) -> None:
        if len(found) != len(records):
            message = f"has {len(found)} {what}, the manifest lists {len(records)}"
            raise BundleInvalid(f"program {self.name}: the executable {message}")
