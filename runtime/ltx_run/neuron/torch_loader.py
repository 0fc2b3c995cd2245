"""A second way to get a NEFF onto NeuronCores: the class `SPMDModel` of torch-neuronx, in this process.

For machines on which libnrt can't be used by itself. torch-neuronx wants a description beside the NEFF
("metaneff"): the tensors in the order of the graph's parameters, and which are weights. It is made here from
the program's record with torch-neuronx's own message class, so that nothing of it is stored.

Nothing of torch-neuronx is imported before it is clear that it is there and no stub.
"""

from __future__ import annotations

import gc
import mmap
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltx_run.distribution import Distribution
from ltx_run.errors import DeviceUnavailable, ProgramFailed
from ltx_run.neuron.names import input_name, output_name
from ltx_run.neuron.signature import Signature
from ltx_run.weights import Place

Array = NDArray[Any]

PACKAGE = "torch-neuronx"
OLDEST, NEWEST = (2, 11), (2, 15)
"""Versions of SDK 2.27 and of SDK 2.31, the last that has it."""
ADVICE = "install it as the guide of SDK 2.31 says, or unset LTX_NEURON_LOADER to use libnrt"
DTYPES: Mapping[str, str] = MappingProxyType(
    {
        "bfloat16": "BFLOAT16",
        "float16": "FLOAT16",
        "float32": "FLOAT",
        "int32": "INT32",
        "uint32": "INT32",  # it has no uint32; the bytes are the same
        "int8": "INT8",
        "uint8": "UINT8",
        "bool": "BOOL",
    }
)
"""Names of dtypes in a metaneff."""


def check() -> None:
    """Refuse when torch-neuronx is not there, a stub, or of an SDK that this can't be used with.

    Raises:
        DeviceUnavailable: It says what is there and what is needed.
    """
    try:
        found = version(PACKAGE)
    except PackageNotFoundError:
        raise DeviceUnavailable(f"{PACKAGE} is not installed", hint=ADVICE) from None
    parts = found.partition("+")[0].split(".")
    if len(parts) < 5:  # the real ones have torch's version before their own: 2.9.0.2.13.24727
        raise DeviceUnavailable(f"{PACKAGE} {found} is a stub without code", hint=ADVICE)
    own = (int(parts[3]), int(parts[4]))
    if not OLDEST <= own <= NEWEST:
        first, last = (".".join(map(str, limit)) for limit in (OLDEST, NEWEST))
        raise DeviceUnavailable(f"{PACKAGE} is {found}; this loader is for {first} to {last}", hint=ADVICE)


class TorchLoader:
    """Programs on NeuronCores by way of torch-neuronx; see `engine.Engine` for what the methods do."""

    def __init__(self, cores: int) -> None:
        """Import torch-neuronx.

        Raises:
            DeviceUnavailable: It is not what is needed, or can't be imported.
        """
        check()
        try:
            self._torch: Any = import_module("torch")
            import_module("torch_neuronx")
            self._messages: Any = import_module("torch_neuronx.proto.metaneff_pb2")
            self._kind = self._torch.classes.neuron.SPMDModel
        except (ImportError, AttributeError, RuntimeError) as error:
            raise DeviceUnavailable(f"{PACKAGE} can't be used: {error}", hint=ADVICE) from None
        self._cores = cores
        self._signatures: dict[str, Signature] = {}
        self._models: dict[str, Any] = {}
        self._places: dict[int, Sequence[Place]] = {}
        self._weights: dict[int, list[Any]] = {}
        self._values: dict[str, dict[int, Any]] = {}

    def load(self, signature: Signature, neff: bytes, needed: int) -> None:
        """Make the model; torch-neuronx loads it when it is initialized."""
        self._signatures[signature.name] = signature
        meta = self._describe(signature).SerializeToString()
        self._models[signature.name] = self._kind(bytes(neff), meta, self._cores, self._cores)

    def _describe(self, signature: Signature) -> Any:
        meta, kinds = self._messages.MetaNeff(), self._messages.MetaTensor
        for index, record in enumerate(signature.inputs):
            tensor = self._tensor(meta.input_tensors.add(), input_name(index), record)
            if index in signature.changing:
                tensor.type = kinds.USER_INPUT
            else:
                tensor.type = kinds.INPUT_WEIGHT
                tensor.checkpoint_key = input_name(index).encode()
        for index, record in enumerate(signature.outputs):
            self._tensor(meta.output_tensors.add(), output_name(index), record)
        meta.num_user_inputs = len(signature.changing)
        meta.num_weights = len(signature.inputs) - len(signature.changing)
        return meta

    def _tensor(self, tensor: Any, name: str, record: Distribution) -> Any:
        tensor.name = name.encode()
        tensor.shape[:] = record.part_shape
        tensor.data_type = getattr(self._messages.MetaTensor, DTYPES[record.dtype.name])
        return tensor

    def put(self, key: int, name: str, places: Sequence[Place]) -> None:
        """Note where a weight is; it goes to the cores with the first program that is bound to it."""
        self._places[key] = places

    def free(self, key: int) -> None:
        """Drop a weight."""
        self._places.pop(key, None)
        self._weights.pop(key, None)
        gc.collect()

    def warm_up(self, name: str, weights: Mapping[int, int]) -> None:
        """Initialize the model with its weights, and execute it with zeros."""
        signature = self._signatures[name]
        self._place({key: signature.inputs[index] for index, key in weights.items()})
        ranks = [
            {input_name(index): self._weights[key][rank] for index, key in weights.items()}
            for rank in range(self._cores)
        ]
        self._guard(self._models[name].initialize, [{}], ranks, 0)
        self._values[name] = {}
        self.execute(name, {i: np.zeros(each.shape, each.dtype) for i, each in signature.changing.items()})

    def _place(self, records: Mapping[int, Distribution]) -> None:
        """Copy weights that aren't on the cores yet, all ranks at once."""
        new = {key: record for key, record in records.items() if key not in self._weights}
        if not new:
            return
        host = [
            {str(key): self._from(_read(self._places[key][rank]), record) for key, record in new.items()}
            for rank in range(self._cores)
        ]
        ranks = self._guard(self._torch.ops.neuron._parallel_load, host)
        self._weights |= {key: [rank[str(key)] for rank in ranks] for key in new}

    def execute(self, name: str, changed: Mapping[int, Array]) -> list[Array]:
        """Execute a program; torch-neuronx writes all inputs each time."""
        signature, values = self._signatures[name], self._values[name]
        for index, value in changed.items():
            pieces = signature.inputs[index].split(value)
            values[index] = [self._from(piece, signature.inputs[index]) for piece in pieces]
        ranked = [[values[index][rank] for index in signature.changing] for rank in range(self._cores)]
        results = self._guard(self._models[name].forward_ranked, ranked)
        return [
            record.join([self._to(results[rank][index], record) for rank in range(self._cores)])
            for index, record in enumerate(signature.outputs)
        ]

    def _from(self, piece: Array, record: Distribution) -> Any:
        raw = np.ascontiguousarray(piece).reshape(-1).view(np.uint8)
        dtype = getattr(self._torch, record.dtype.name)
        # torch has no tensors that can't be written to.
        return (
            self._torch.from_numpy(raw if raw.flags.writeable else raw.copy())
            .view(dtype)
            .reshape(record.part_shape)
        )

    def _to(self, tensor: Any, record: Distribution) -> Array:
        raw = tensor.cpu().contiguous().reshape(-1).view(self._torch.uint8).numpy()
        array: Array = raw.view(record.dtype).reshape(record.part_shape)
        return array

    def _guard(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except RuntimeError as error:
            raise ProgramFailed(f"{PACKAGE} failed: {error}", hint="its own lines above say more") from None

    def unload(self, name: str) -> None:
        """Drop a program; the cores have no other way to let it go."""
        for owner in (self._models, self._signatures, self._values):
            owner.pop(name, None)
        gc.collect()

    def close(self) -> None:
        """Drop everything; the cores are free when the process ends."""
        for owner in (self._models, self._signatures, self._values, self._places, self._weights):
            owner.clear()
        gc.collect()


def _read(place: Place) -> Array:
    """Bytes of a file, mapped; what is written to them doesn't reach it."""
    with Path(place.path).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return np.frombuffer(mapped, np.uint8)[place.start : place.start + place.size]
