"""Executing PJRT executables with jaxlib alone: no jax, no tracing, no pickle.

Everything that touches jaxlib's private interface to run programs is here, in `ltx_run.arrays` and in
`ltx_run.clients`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ltx_run import devices as platform
from ltx_run.arrays import Aval, Row, Tensor, sharding_of
from ltx_run.bundle import Program, WeightInput
from ltx_run.clients import _jax, xla
from ltx_run.distribution import Distribution, distributions
from ltx_run.errors import BundleInvalid, CompileFailed, ProgramFailed, ProgramMismatch
from ltx_run.weights import Weights

Array = NDArray[Any]


class Devices(Row):
    """The devices of one client, which load programs."""

    def load(self, name: str, program: Program, code: bytes) -> Executable:
        """Make a serialized executable ready to run.

        The caller has verified the digest of `code` and the fingerprint: code of another machine crashes.

        Raises:
            BundleInvalid: The executable can't be loaded, or contradicts the program's record.
        """
        count = program.fingerprint.devices
        numbers = [device.id for device in self.row(count)]
        # An executable knows its devices by number.
        options = None if numbers == list(range(count)) else _options(numbers)
        try:
            loaded = self._client.deserialize_executable(code, self.list(count), options)
        except Exception as error:
            raise BundleInvalid(f"program {name}: the executable can't be loaded: {error}") from error
        return Executable(name, program, loaded, self)

    def compile(self, name: str, program: Program, module: bytes) -> bytes:
        """Compile StableHLO for these devices, with the flags that the executable was compiled with.

        Raises:
            CompileFailed: The compiler refuses it.
        """
        count = program.fingerprint.devices
        options = _options([device.id for device in self.row(count)])
        options.env_option_overrides = list(program.portable.flags.items()) if program.portable else []
        try:
            code: bytes = self._client.compile_and_load(module, self.list(count), options).serialize()
        except Exception as error:
            message = f"program {name} can't be compiled here: {error}"
            raise CompileFailed(message, hint="build it for this machine: ltxbuild compile RECIPE") from error
        return code


def _options(numbers: Sequence[int]) -> Any:
    """How a program is spread: rank r on the device of number `numbers[r]`."""
    options = xla.CompileOptions()
    options.num_partitions = len(numbers)
    options.device_assignment = xla.DeviceAssignment.create(np.array([numbers]))
    options.executable_build_options.use_spmd_partitioning = True
    options.executable_build_options.use_shardy_partitioner = True
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
            _jax.array_result_handler(Aval(d.shape, d.dtype), sharding, True, True)
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
        """A weight as parameter number `index`, not copied where alignment allows.

        Raises:
            ProgramMismatch: The devices don't take it; the next video would fail just so.
        """
        parts = files.parts(record, self.inputs[index], self._devices.ranks(self._count))
        try:
            return self.put_parts(index, parts)
        except ProgramFailed as error:
            raise ProgramMismatch(f"weight {record.name}: {error.message}", hint=error.hint) from error

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
        """The executable's own shardings, checked against the records; the records', if it doesn't say."""
        devices = self._devices.list(self._count)
        if protos is None:
            return [_jax.GSPMDSharding(devices, sharding_of(record)) for record in records]
        self._check_count(what, records, protos)
        shardings = [xla.HloSharding.from_proto(proto) for proto in protos]
        for record, sharding in zip(records, shardings, strict=True):
            dimensions = sharding.tile_assignment_dimensions() if sharding.is_tiled() else ()
            counts = tuple(dimensions[: len(record.shape)]) or (1,) * len(record.shape)
            if counts != record.counts:
                message = f"splits its {what} as {counts}, the manifest says {record.counts}"
                raise BundleInvalid(f"program {self.name}: the executable {message}")
        return [_jax.GSPMDSharding(devices, sharding) for sharding in shardings]

    def _check_count(self, what: str, records: Sequence[Distribution], found: Sequence[Any]) -> None:
        if len(found) != len(records):
            message = f"has {len(found)} {what}, the manifest lists {len(records)}"
            raise BundleInvalid(f"program {self.name}: the executable {message}")
