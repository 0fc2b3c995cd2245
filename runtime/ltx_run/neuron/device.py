"""The device as this process has it: models and tensors on its cores, by way of libnrt."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ltx_run.errors import DeviceUnavailable, ProgramFailed
from ltx_run.neuron import nrt
from ltx_run.neuron.status import WITHOUT_REASON, check

Array = NDArray[Any]
Handle = c_void_p

NO_DEVICE = "run it on a trn2 instance with Neuron's driver: sudo apt-get install aws-neuronx-dkms"


class Memory(NamedTuple):
    """Bytes of a core's device memory."""

    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What the runtime says of itself and of the instance.

    Attributes:
        runtime: Version of libnrt: major and minor number.
        family: Instance family, such as `trn2`.
        cores: Logical cores that this process sees.
    """

    runtime: tuple[int, int]
    family: str
    cores: int


class TensorInfo(NamedTuple):
    """A tensor of a loaded model: name, whether it is an input, bytes, the runtime's code of its dtype."""

    name: str
    is_input: bool
    size: int
    dtype: int


class Device:
    """The runtime, started; it holds the visible cores until the process ends."""

    def __init__(self, path: Path) -> None:
        """Load the library and start the runtime.

        Raises:
            LtxError: There is no usable library, or no device that this process may have.
        """
        self._library = nrt.load(path)
        status = self._library.nrt_init(nrt.FRAMEWORK_NONE, b"", b"")
        if status in WITHOUT_REASON and not list(Path("/dev").glob("neuron*")):
            raise DeviceUnavailable("there is no Neuron device: no /dev/neuron0", hint=NO_DEVICE)
        check(status, "start the Neuron runtime")

    def machine(self) -> Machine:
        """What is there."""
        version, instance, cores = nrt.Version(), nrt.Instance(), c_uint32()
        library = self._library
        check(
            library.nrt_get_version(byref(version), ctypes.sizeof(version)), "ask for the runtime's version"
        )
        size = ctypes.sizeof(instance)
        check(library.nrt_get_instance_info(byref(instance), size), "ask for the instance type")
        check(library.nrt_get_visible_vnc_count(byref(cores)), "count the NeuronCores")
        family = nrt.FAMILIES.get(instance.family, f"of unknown family {instance.family}")
        return Machine((version.major, version.minor), family, cores.value)

    def memory(self, core: int) -> Memory:
        """Device memory of a core."""
        stats, written = nrt.MemoryStats(), c_size_t()
        size = ctypes.sizeof(stats)
        status = self._library.nrt_get_vnc_memory_stats(core, byref(stats), size, byref(written))
        check(status, f"ask for the memory of core {core}")
        return Memory(stats.used, stats.limit)

    def load(self, neff: Array, rank: int, world: int) -> Handle:
        """A NEFF on the core of a rank; with several ranks all must do this at the same time.

        Args:
            neff: Its bytes.
            rank: From 0.
            world: Number of ranks.
        """
        model, start = Handle(), _address(neff)
        if world == 1:
            status = self._library.nrt_load(start, neff.nbytes, rank, nrt.ALL_CORES, byref(model))
        else:
            status = self._library.nrt_load_collectives(
                start, neff.nbytes, rank, nrt.ALL_CORES, rank, world, byref(model)
            )
        check(status, f"load the NEFF on core {rank}")
        return model

    def unload(self, model: Handle) -> None:
        """Take a model from its core."""
        check(self._library.nrt_unload(model), "unload a NEFF")

    def tensors(self, model: Handle) -> list[TensorInfo]:
        """What a loaded model takes and gives."""
        infos = ctypes.POINTER(nrt.TensorInfos)()
        check(self._library.nrt_get_model_tensor_info(model, byref(infos)), "ask a NEFF for its tensors")
        try:
            array = infos.contents
            first = ctypes.addressof(array) + nrt.TensorInfos.first.offset
            found = (nrt.TensorInfo * array.count).from_address(first)
            return [
                TensorInfo(info.name.decode(), info.usage == nrt.USAGE_INPUT, info.size, info.dtype)
                for info in found
            ]
        finally:
            self._library.nrt_free_model_tensor_info(infos)

    def allocate(self, core: int, size: int, name: str) -> Handle:
        """Device memory for a tensor."""
        if size >= nrt.TENSOR_LIMIT:
            raise ProgramFailed(f"{name} has {size} bytes on a core; Neuron's runtime takes less than 4 GiB")
        tensor = Handle()
        status = self._library.nrt_tensor_allocate(nrt.ON_DEVICE, core, size, name.encode(), byref(tensor))
        check(status, f"allocate {size} bytes for {name} on core {core}")
        return tensor

    def free(self, tensor: Handle) -> None:
        """Give a tensor's memory back."""
        self._library.nrt_tensor_free(byref(tensor))

    def write(self, tensor: Handle, values: Array) -> None:
        """Fill a tensor from host memory, without a copy of contiguous values."""
        values = np.ascontiguousarray(values)
        check(
            self._library.nrt_tensor_write(tensor, _address(values), 0, values.nbytes), "write to the device"
        )

    def read(self, tensor: Handle, values: Array) -> None:
        """Fill contiguous host memory from a tensor."""
        check(
            self._library.nrt_tensor_read(tensor, _address(values), 0, values.nbytes), "read from the device"
        )

    def group(self) -> Handle:
        """An empty set of tensors."""
        tensors = Handle()
        check(self._library.nrt_allocate_tensor_set(byref(tensors)), "make a set of tensors")
        return tensors

    def add(self, tensors: Handle, name: str, tensor: Handle) -> None:
        """Add a tensor to a set, by its name in the NEFF."""
        status = self._library.nrt_add_tensor_to_tensor_set(tensors, name.encode(), tensor)
        check(status, f"add {name} to a set of tensors")

    def ungroup(self, tensors: Handle) -> None:
        """Let go of a set; its tensors stay."""
        self._library.nrt_destroy_tensor_set(byref(tensors))

    def execute(self, model: Handle, inputs: Handle, outputs: Handle) -> int:
        """Execute a model; with several ranks all must do this at the same time.

        Returns:
            The status, of which some are no failure while a program is warmed up.
        """
        status: int = self._library.nrt_execute(model, inputs, outputs)
        return status

    def close(self) -> None:
        """End the runtime."""
        self._library.nrt_close()


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
