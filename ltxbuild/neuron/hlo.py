"""HLO modules as a graph of objects, read from and written to `HloModuleProto`.

Instructions point at their operands and at the computations that they apply, so that moving or removing them
needs no bookkeeping. Numbers and names are given when a module is written: small, unique, and the same for
equal graphs, whatever process made them.

Source of the field numbers: `xla/service/hlo.proto` of OpenXLA.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ltxbuild.neuron.wire import Field, Value, encode, fields, numbers, packed


class _ModuleField:
    NAME, ENTRY_NAME, COMPUTATIONS, SHAPE, ID, ENTRY_ID = 1, 2, 3, 4, 5, 6
    FRAMES = 17


class _ComputationField:
    NAME, INSTRUCTIONS, SHAPE, ID, ROOT = 1, 2, 4, 5, 6


class InstructionField:
    """Fields of `HloInstructionProto`."""

    NAME, OPCODE, SHAPE, METADATA = 1, 2, 3, 7
    LITERAL, PARAMETER_NUMBER, TUPLE_INDEX, DIMENSIONS = 8, 9, 13, 14
    EXPONENT_BITS, MANTISSA_BITS = 18, 19
    CHANNEL, ID, OPERANDS, CONTROL, CALLED, SHARDING, GROUPS = 26, 35, 36, 37, 38, 40, 49
    ATTRIBUTES, GLOBAL_IDS = 68, 71
    DEVICE_LIST, IOTA_GROUPS, MESH_GROUPS = 87, 92, 93


ELEMENT_TYPE, DIMENSIONS = 2, 3
"""Fields of `ShapeProto`."""

_I: Final = InstructionField
_BY_POINTER = (_I.NAME, _I.OPCODE, _I.SHAPE, _I.METADATA, _I.ID, _I.OPERANDS, _I.CALLED)
"""Fields that an `Instruction` holds in another form."""


@dataclass(slots=True, eq=False)
class Instruction:
    """One instruction.

    Attributes:
        opcode: What it does.
        shape: Of its result, as `ShapeProto`.
        operands: What it reads.
        called: Computations that it applies.
        rest: Its other fields, as on the wire.
        metadata: Where it comes from, as `OpMetadata`.
    """

    opcode: str
    shape: bytes
    operands: list[Instruction] = field(default_factory=list)
    called: list[Computation] = field(default_factory=list)
    rest: list[Field] = field(default_factory=list)
    metadata: bytes = b""

    def get(self, number: int) -> Value | None:
        """A field of `rest`."""
        return next((value for found, value in self.rest if found == number), None)

    def number(self, number: int) -> int:
        """A number among `rest`; what is not on the wire is 0."""
        value = self.get(number) or 0
        assert isinstance(value, int)
        return value


@dataclass(slots=True, eq=False)
class Computation:
    """A function: instructions, operands before their users.

    Attributes:
        instructions: In order.
        root: Its result.
        shape: Of parameters and result, as `ProgramShapeProto`.
    """

    instructions: list[Instruction]
    root: Instruction
    shape: bytes

    @property
    def parameters(self) -> list[Instruction]:
        """Its parameters in order."""
        found = (item for item in self.instructions if item.opcode == "parameter")
        return sorted(found, key=lambda item: item.number(_I.PARAMETER_NUMBER))


@dataclass(slots=True, eq=False)
class Module:
    """A whole program.

    Attributes:
        computations: Callees before callers.
        entry: What is run.
        frames: Call stacks that metadata refers to, as `StackFrameIndexProto`.
        name: Of the program.
    """

    computations: list[Computation]
    entry: Computation
    frames: bytes
    name: str

    @property
    def instructions(self) -> list[Instruction]:
        """All instructions."""
        return [item for computation in self.computations for item in computation.instructions]


def read(data: bytes) -> Module:
    """Read a serialized `HloModuleProto`."""
    once: dict[int, Value] = {}
    computations: dict[int, Computation] = {}
    for number, value in fields(data):
        if number == _ModuleField.COMPUTATIONS:
            assert isinstance(value, bytes)
            identity, computation = _computation(value, computations)
            computations[identity] = computation
        else:
            once[number] = value
    entry = computations[_int(once[_ModuleField.ENTRY_ID])]
    frames, name = once.get(_ModuleField.FRAMES, b""), once.get(_ModuleField.NAME, b"")
    assert isinstance(frames, bytes)
    assert isinstance(name, bytes)
    return Module(list(computations.values()), entry, frames, name.decode())


def _computation(data: bytes, known: dict[int, Computation]) -> tuple[int, Computation]:
    """The number of a computation and itself; those that it calls are known."""
    once: dict[int, Value] = {}
    instructions: dict[int, Instruction] = {}
    for number, value in fields(data):
        if number == _ComputationField.INSTRUCTIONS:
            assert isinstance(value, bytes)
            identity, instruction = _instruction(value, instructions, known)
            instructions[identity] = instruction
        else:
            once[number] = value
    shape = once[_ComputationField.SHAPE]
    assert isinstance(shape, bytes)
    root = instructions[_int(once[_ComputationField.ROOT])]
    return _int(once[_ComputationField.ID]), Computation(list(instructions.values()), root, shape)


def _instruction(
    data: bytes, before: dict[int, Instruction], known: dict[int, Computation]
) -> tuple[int, Instruction]:
    instruction, identity = Instruction("", b""), -1
    for number, value in fields(data):
        match number, value:
            case _I.OPCODE, bytes(text):
                instruction.opcode = text.decode()
            case _I.SHAPE, bytes(shape):
                instruction.shape = shape
            case _I.METADATA, bytes(metadata):
                instruction.metadata = metadata
            case _I.ID, int(identity):
                pass
            case _I.OPERANDS, _:
                instruction.operands += [before[item] for item in numbers(value)]
            case _I.CALLED, _:
                instruction.called += [known[item] for item in numbers(value)]
            case _ if number not in _BY_POINTER:
                instruction.rest.append((number, value))
    return identity, instruction


def write(module: Module) -> bytes:
    """Write a `HloModuleProto`; equal graphs give equal bytes."""
    ids = {computation: index for index, computation in enumerate(module.computations, 1)}
    places = {item: index for index, item in enumerate(module.instructions, 1)}
    entry = ids[module.entry]
    return encode(
        [
            (_ModuleField.NAME, module.name.encode()),
            (_ModuleField.ENTRY_NAME, f"computation.{entry}".encode()),
            *((_ModuleField.COMPUTATIONS, _written(item, ids, places)) for item in module.computations),
            (_ModuleField.SHAPE, module.entry.shape),
            (_ModuleField.ID, 1),
            (_ModuleField.ENTRY_ID, entry),
        ]
    )


def _written(computation: Computation, ids: dict[Computation, int], places: dict[Instruction, int]) -> bytes:
    number = ids[computation]
    bodies = (_written_instruction(item, ids, places) for item in computation.instructions)
    return encode(
        [
            (_ComputationField.NAME, f"computation.{number}".encode()),
            *((_ComputationField.INSTRUCTIONS, body) for body in bodies),
            (_ComputationField.SHAPE, computation.shape),
            (_ComputationField.ID, number),
            (_ComputationField.ROOT, places[computation.root]),
        ]
    )


def _written_instruction(
    instruction: Instruction, ids: dict[Computation, int], places: dict[Instruction, int]
) -> bytes:
    place = places[instruction]
    operands, called = [places[x] for x in instruction.operands], [ids[x] for x in instruction.called]
    head: list[Field] = [
        (_I.NAME, f"{instruction.opcode}.{place}".encode()),
        (_I.OPCODE, instruction.opcode.encode()),
        (_I.SHAPE, instruction.shape),
        (_I.ID, place),
    ]
    pointers = [(_I.OPERANDS, packed(operands))] if operands else []
    applied = [(_I.CALLED, packed(called))] if called else []
    return encode([*head, *pointers, *applied, *instruction.rest])


def _int(value: Value) -> int:
    assert isinstance(value, int)
    return value
