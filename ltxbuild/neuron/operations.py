"""What Neuron's compiler takes, and how a refusal names the line of the model.

The operations are those of AWS's list for `neuronx-cc` that XLA's partitioner leaves of this model's
programs, with the ones that a loop or guidance would add. Others may work; they enter here when someone has
seen them do so.
"""

from __future__ import annotations

from ltxbuild.neuron.groups import FORMS
from ltxbuild.neuron.hlo import DIMENSIONS, ELEMENT_TYPE, Instruction, InstructionField, Module
from ltxbuild.neuron.wire import fields, numbers

_NAMES = """
    add subtract multiply divide maximum minimum negate abs sign floor ceil power
    exponential log tanh logistic sqrt rsqrt sine cosine
    compare select clamp and or not convert
    constant parameter iota broadcast reshape transpose slice concatenate pad tuple get-tuple-element
    dot reduce gather dynamic-slice dynamic-update-slice while
    all-reduce all-gather
"""
OPERATIONS = frozenset(_NAMES.split())
COLLECTIVES = ("all-reduce", "all-gather")

ELEMENT_TYPES = frozenset({1, 2, 4, 6, 8, 10, 11, 13, 16})
"""Of `PrimitiveType`: pred, s8, s32, u8, u32, f16, f32, tuple, bf16. What has 64 bits would be cut to 32."""

_I = InstructionField
PLAIN = frozenset(
    {_I.LITERAL, _I.PARAMETER_NUMBER, _I.TUPLE_INDEX, _I.DIMENSIONS, 17, 20, 21, 30, 33, 34, 51}
)
"""Fields that say what an operation does; slices, padding, dots, gathers and their precision among them."""
DETAILS = frozenset({63, 67, 69, 72})
"""Direction and type of a comparison, what is known of indices."""
IDLE = frozenset({_I.SHARDING, _I.ATTRIBUTES, _I.CHANNEL, _I.GLOBAL_IDS, *FORMS, 43, 82, 88, 91})
"""Fields that say nothing of one rank's arithmetic, or are written anew: sharding, notes, groups."""

MODEL = "ltxbuild/model/"
PATH, FRAME = 2, 15
"""Fields of `OpMetadata`."""


class Unsupported(ValueError):
    """A program that Neuron's compiler would refuse."""


def check(module: Module) -> None:
    """Refuse what Neuron's compiler doesn't take.

    Raises:
        Unsupported: Names the first such operation and the line of the model that it comes from.
    """
    for instruction in module.instructions:
        wrong = _problem(instruction)
        if wrong:
            raise Unsupported(f"{wrong}; it comes from {origin(instruction, module)}")


def _problem(instruction: Instruction) -> str | None:
    if instruction.opcode not in OPERATIONS:
        return f"operation {instruction.opcode} is not among those that Neuron's compiler is known to take"
    kinds = [value for number, value in fields(instruction.shape) if number == ELEMENT_TYPE]
    if any(kind not in ELEMENT_TYPES for kind in kinds):
        return f"operation {instruction.opcode} has elements of type number {kinds[0]!r}, which Neuron lacks"
    if 0 in numbers(dict(fields(instruction.shape)).get(DIMENSIONS, b"")):
        return f"operation {instruction.opcode} has no elements"
    unknown = sorted({number for number, _ in instruction.rest} - PLAIN - DETAILS - IDLE)
    if unknown:
        return f"operation {instruction.opcode} has field {unknown[0]}, of which nothing is known here"
    return None


def has_line(instruction: Instruction) -> bool:
    """Whether an instruction says where it comes from; those of functions that jax keeps for reuse don't."""
    return any(number == FRAME for number, _ in fields(instruction.metadata))


def origin(instruction: Instruction, module: Module) -> str:
    """File and line of the innermost frame in the model's code, and the operation's path in the program."""
    once = dict(fields(instruction.metadata))
    path = once.get(PATH, b"")
    assert isinstance(path, bytes)
    frame = once.get(FRAME, 0)
    assert isinstance(frame, int)
    lines = _stack(module.frames, frame)
    inside = [MODEL + line.partition(MODEL)[2] for line in lines if MODEL in line] or lines
    return f"{inside[0] if inside else 'an unknown line'} ({path.decode() or 'no path'})"


def _stack(data: bytes, frame: int) -> list[str]:
    """Lines of a call stack, innermost first; numbers in it count from 1, and 0 is none."""
    table: dict[int, list[bytes]] = {}
    for number, value in fields(data):
        assert isinstance(value, bytes)
        table.setdefault(number, []).append(value)
    lines = []
    while frame:
        here = dict(fields(table[4][frame - 1]))
        place = dict(fields(table[3][_index(here.get(1))]))
        lines.append(f"{table[1][_index(place.get(1))].decode()}:{place.get(3, 0)!r}")
        parent = here.get(2, 0)
        assert isinstance(parent, int)
        frame = parent
    return lines


def _index(number: int | bytes | None) -> int:
    assert isinstance(number, int)
    return number - 1
