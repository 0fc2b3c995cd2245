"""Programs on the NeuronCores of this process: loaded, bound to weights, executed, unloaded.

An engine is used by one thread at a time; what the ranks do together it does with a thread for each. Weights
go by keys that the caller chooses.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltx_cache.errors import LtxError
from ltx_run.distribution import Distribution
from ltx_run.neuron import nrt, preflight
from ltx_run.neuron.device import Device, Handle, Memory
from ltx_run.neuron.names import input_name, output_name
from ltx_run.neuron.ranks import Ranks
from ltx_run.neuron.settings import Limits
from ltx_run.neuron.signature import Signature, part_bytes
from ltx_run.neuron.status import NOT_NUMBERS, check
from ltx_run.weights import Place

Array = NDArray[Any]


@dataclass(slots=True)
class _Loaded:
    """A program on the device.

    Attributes:
        signature: What it takes and gives.
        resources: Closing it takes everything from the device.
        models: Per rank.
        tensors: Per changing input, the tensor of each rank.
        results: Per result, the tensor of each rank.
        sets: Per rank, the sets of inputs and of results.
    """

    signature: Signature
    resources: ExitStack = field(default_factory=ExitStack)
    models: list[Handle] = field(default_factory=list)
    tensors: dict[int, list[Handle]] = field(default_factory=dict)
    results: list[list[Handle]] = field(default_factory=list)
    sets: list[tuple[Handle, Handle]] = field(default_factory=list)


class Engine:
    """The runtime in this process, with what is loaded."""

    def __init__(self, cores: int, limits: Limits) -> None:
        """Start the runtime, and check the machine.

        Raises:
            LtxError: It lacks something.
        """
        self._cores = cores
        self._limits = limits
        self._ranks = Ranks(cores)
        self._device = Device(nrt.find(os.environ))
        self._programs: dict[str, _Loaded] = {}
        self._weights: dict[int, list[Handle]] = {}
        self._files: dict[Path, Array] = {}
        preflight.check_machine(self._device.machine(), cores)
        self._first = self._memory()

    def load(self, signature: Signature, neff: bytes | Array, needed: int) -> None:
        """Put a program on the cores, and compare it with its record.

        Args:
            signature: Of the program.
            neff: Its bytes.
            needed: Bytes on each core that its weights and values will take.

        Raises:
            LtxError: It doesn't fit, contradicts its record, or can't be loaded.
        """
        name = signature.name
        preflight.check_memory(name, self._memory(), needed)
        loaded, data = _Loaded(signature), np.frombuffer(neff, np.uint8)

        def on(rank: int) -> Handle:
            model = self._device.load(data, rank, self._cores)
            loaded.resources.callback(self._device.unload, model)
            return model

        self._programs[name] = loaded
        try:
            loaded.models = self._ranks.each(on, self._limits.load, f"load program {name}")
            preflight.check_tensors(signature, self._device.tensors(loaded.models[0]))
        except LtxError:
            self.unload(name)
            raise

    def put(self, key: int, name: str, places: Sequence[Place]) -> None:
        """Copy a weight to the cores, straight from its files.

        Args:
            key: What it is called from now on.
            name: Of the weight, for messages.
            places: Where each rank's part is.
        """
        parts: list[Handle] = []
        with ExitStack() as undo:
            for core, place in enumerate(places):
                tensor = self._device.allocate(core, place.size, name)
                undo.callback(self._device.free, tensor)
                self._device.write(tensor, self._mapped(place))
                parts.append(tensor)
            undo.pop_all()
        self._weights[key] = parts

    def _mapped(self, place: Place) -> Array:
        path = Path(place.path)
        if path not in self._files:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._files[path] = np.frombuffer(mapped, np.uint8)
        return self._files[path][place.start : place.start + place.size]

    def free(self, key: int) -> None:
        """Give a weight's memory back; no program that is bound to it may be executed again."""
        for tensor in self._weights.pop(key, ()):
            self._device.free(tensor)

    def warm_up(self, name: str, weights: Mapping[int, int]) -> None:
        """Bind a loaded program to its weights, and execute it once with zeros.

        Args:
            name: Of the program.
            weights: Keys of weights by parameter number.

        Raises:
            LtxError: It doesn't execute.
        """
        loaded = self._programs[name]
        changing, outputs = loaded.signature.changing, loaded.signature.outputs
        loaded.tensors = {i: self._allocate(loaded, each, input_name(i)) for i, each in changing.items()}
        loaded.results = [self._allocate(loaded, each, output_name(i)) for i, each in enumerate(outputs)]
        inputs = {**{index: self._weights[key] for index, key in weights.items()}, **loaded.tensors}
        for rank in range(self._cores):
            taken = {input_name(index): parts[rank] for index, parts in inputs.items()}
            made = {output_name(index): parts[rank] for index, parts in enumerate(loaded.results)}
            loaded.sets.append((self._group(loaded, taken), self._group(loaded, made)))
        self._write(loaded, {i: np.zeros(each.shape, each.dtype) for i, each in changing.items()})
        self._files.clear()
        # Of zeros a sound program may make what is no number.
        self._run(name, accepted=NOT_NUMBERS)

    def _allocate(self, loaded: _Loaded, record: Distribution, name: str) -> list[Handle]:
        parts = []
        for core in range(self._cores):
            tensor = self._device.allocate(core, part_bytes(record), name)
            loaded.resources.callback(self._device.free, tensor)
            parts.append(tensor)
        return parts

    def _group(self, loaded: _Loaded, named: Mapping[str, Handle]) -> Handle:
        group = self._device.group()
        loaded.resources.callback(self._device.ungroup, group)
        for name, tensor in named.items():
            self._device.add(group, name, tensor)
        return group

    def execute(
        self, name: str, changed: Mapping[int, Array], results: Sequence[Array] | None = None
    ) -> Sequence[Array]:
        """Execute a program.

        Args:
            name: Of the program, which was warmed up.
            changed: Inputs by parameter number that differ from those of the last call.
            results: Memory for what it makes, if there is some.

        Returns:
            What it makes.

        Raises:
            ProgramFailed: It failed, or gave no answer in time.
        """
        loaded = self._programs[name]
        outputs = loaded.signature.outputs
        self._write(loaded, changed)
        self._run(name)
        if results is None:
            results = [np.empty(record.shape, record.dtype) for record in outputs]
        for record, parts, result in zip(outputs, loaded.results, results, strict=True):
            self._read(record, parts, result)
        return results

    def _read(self, record: Distribution, parts: Sequence[Handle], result: Array) -> None:
        if record.replicated:
            self._device.read(parts[0], result)
            return
        pieces = [np.empty(record.part_shape, record.dtype) for _ in parts]
        for part, piece in zip(parts, pieces, strict=True):
            self._device.read(part, piece)
        result[...] = record.join(pieces)

    def _write(self, loaded: _Loaded, values: Mapping[int, Array]) -> None:
        for index, value in values.items():
            pieces = loaded.signature.inputs[index].split(value)
            for tensor, piece in zip(loaded.tensors[index], pieces, strict=True):
                self._device.write(tensor, piece)

    def _run(self, name: str, accepted: int = 0) -> None:
        loaded = self._programs[name]

        def on(rank: int) -> None:
            status = self._device.execute(loaded.models[rank], *loaded.sets[rank])
            if status != accepted:
                check(status, f"execute program {name} on core {rank}")

        self._ranks.each(on, self._limits.execute, f"execute program {name}")

    def unload(self, name: str) -> None:
        """Take a program from the cores, unless they are stuck; its weights stay."""
        loaded = self._programs.pop(name, None)
        if loaded is not None and not self._ranks.stuck:
            loaded.resources.close()

    def clear(self) -> int:
        """Take everything from the cores, unless they are stuck.

        Returns:
            Bytes more in use on a core than at first.
        """
        if self._ranks.stuck:
            return 0
        for name in list(self._programs):
            self.unload(name)
        for key in list(self._weights):
            self.free(key)
        return max(now.used - first.used for now, first in zip(self._memory(), self._first, strict=True))

    def close(self) -> None:
        """Take everything from the cores and end the runtime; if they are stuck, that is left to the end."""
        self.clear()
        if not self._ranks.stuck:
            self._device.close()

    def _memory(self) -> list[Memory]:
        return [self._device.memory(core) for core in range(self._cores)]
