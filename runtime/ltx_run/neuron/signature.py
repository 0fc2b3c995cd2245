"""What a program takes and gives, and where its values lie in memory that two processes share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ltx_run.bundle import Program, TensorInput
from ltx_run.distribution import Distribution, distributions

Array = NDArray[Any]

ALIGNMENT = 64


@dataclass(frozen=True)
class Signature:
    """A program's record, in the form that loaders use; two processes make the same from it.

    Attributes:
        name: Of the program.
        program: Its record.
        inputs: Distribution of each parameter.
        outputs: Distribution of each result.
        changing: By parameter number, the distribution of each parameter that is no weight.
    """

    name: str
    program: Program
    inputs: Sequence[Distribution]
    outputs: Sequence[Distribution]
    changing: Mapping[int, Distribution]

    @classmethod
    def of(cls, name: str, program: Program) -> Signature:
        """The signature of a program.

        Raises:
            BundleInvalid: The record contradicts itself.
        """
        mesh = dict(program.mesh)
        inputs = distributions(name, program.inputs, mesh)
        outputs = distributions(name, program.outputs, mesh)
        tensors = (i for i, record in enumerate(program.inputs) if isinstance(record, TensorInput))
        return cls(name, program, inputs, outputs, {index: inputs[index] for index in tensors})

    @property
    def part_bytes(self) -> int:
        """Bytes of all parameters and results on one core."""
        return sum(part_bytes(record) for record in (*self.inputs, *self.outputs))


def part_bytes(record: Distribution) -> int:
    """Bytes of one rank's part."""
    return math.prod(record.part_shape) * record.dtype.itemsize


class Values:
    """A program's values, in memory that two processes share, one array after the other.

    Attributes:
        inputs: By parameter number, the whole array of each changing input.
        results: The whole array of each result.
    """

    def __init__(self, signature: Signature, memory: Array) -> None:
        """Divide memory of at least `Values.size(signature)` bytes."""
        places = iter(_places(signature))
        changing = signature.changing.items()
        self.inputs = {index: _view(memory, next(places), record) for index, record in changing}
        self.results = [_view(memory, next(places), record) for record in signature.outputs]

    @staticmethod
    def size(signature: Signature) -> int:
        """Bytes that they take."""
        return _places(signature)[-1]


def _places(signature: Signature) -> list[int]:
    """Where each array starts, and where the last one ends."""
    places = [0]
    for record in (*signature.changing.values(), *signature.outputs):
        size = math.prod(record.shape) * record.dtype.itemsize
        places.append(places[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
    return places


def _view(memory: Array, start: int, record: Distribution) -> Array:
    size = math.prod(record.shape) * record.dtype.itemsize
    array: Array = memory[start : start + size].view(record.dtype).reshape(record.shape)
    return array
