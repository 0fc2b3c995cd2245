"""From what XLA's partitioner wrote to what Neuron's compiler reads.

The compiler parses HLO with an older XLA: numbers of instructions must fit 32 bits, replica groups must be
in the old field. It knows its tensors by names that stand in attributes. What says where code comes from
would make the bytes depend on paths, and goes.
"""

from __future__ import annotations

from ltx_run.neuron.names import input_name, output_name
from ltxbuild.neuron.groups import groups, legacy
from ltxbuild.neuron.hlo import ELEMENT_TYPE, Computation, Instruction, InstructionField, Module, read
from ltxbuild.neuron.operations import COLLECTIVES, IDLE, Unsupported, check, has_line, origin
from ltxbuild.neuron.wire import Field, encode, fields

_I = InstructionField
TYPES = {(8, 7): 16, (5, 10): 10, (8, 23): 11}
"""Bits of exponent and mantissa of bf16, f16 and f32, with their numbers in `PrimitiveType`."""


def cleaned(partitioned: bytes) -> Module:
    """One rank's program as Neuron's compiler reads it.

    Args:
        partitioned: What `partition.partitioned` gave.

    Returns:
        A module that is written as the same bytes for the same program, whatever process or path.

    Raises:
        Unsupported: The compiler would refuse it; the message names the operation and the model's line.
    """
    module = read(partitioned)
    for computation in module.computations:
        _rewrite(computation)
        _drop_dead(computation)
    _drop_unreached(module)
    check(module)
    for instruction in module.instructions:
        _strip(instruction, module)
    _name_tensors(module)
    return module


def _rewrite(computation: Computation) -> None:
    """Put other instructions in the place of those that have some; callees come clean before callers."""
    written: list[Instruction] = []
    results: dict[Instruction, Instruction] = {}
    for instruction in computation.instructions:
        instruction.operands = [results.get(operand, operand) for operand in instruction.operands]
        body, results[instruction] = _replacement(instruction)
        written += body
    computation.instructions = written
    computation.root = results[computation.root]


def _replacement(instruction: Instruction) -> tuple[list[Instruction], Instruction]:
    """What an instruction becomes, and the one of it that is the result."""
    match instruction.opcode:
        case "call":
            return _body(instruction)
        case "copy" if instruction.shape == instruction.operands[0].shape:
            # The partitioner copies where a sharding could have changed.
            return [], instruction.operands[0]
        case "reduce-precision":
            return _rounded(instruction)
    return [instruction], instruction


def _body(call: Instruction) -> tuple[list[Instruction], Instruction]:
    """A copy of what a call calls, on the call's operands, and its result."""
    (callee,) = call.called
    copies = dict(zip(callee.parameters, call.operands, strict=True))
    body = []
    for item in callee.instructions:
        if item not in copies:
            copies[item] = Instruction(
                item.opcode,
                item.shape,
                [copies[operand] for operand in item.operands],
                list(item.called),
                list(item.rest),
                item.metadata if has_line(item) else call.metadata,
            )
            body.append(copies[item])
    return body, copies[callee.root]


def _rounded(instruction: Instruction) -> tuple[list[Instruction], Instruction]:
    """Rounding to the precision of another type, as a conversion to it and back."""
    operand = instruction.operands[0]
    bits = instruction.number(_I.EXPONENT_BITS), instruction.number(_I.MANTISSA_BITS)
    if bits not in TYPES:
        return [instruction], instruction
    shape = encode((n, TYPES[bits] if n == ELEMENT_TYPE else value) for n, value in fields(operand.shape))
    if shape == operand.shape:
        return [], operand
    short = Instruction("convert", shape, [operand], metadata=instruction.metadata)
    back = Instruction("convert", instruction.shape, [short], metadata=instruction.metadata)
    return [short, back], back


def _drop_dead(computation: Computation) -> None:
    """Remove what nothing reads; parameters stay."""
    used = {computation.root}
    kept = []
    for instruction in reversed(computation.instructions):
        if instruction in used or instruction.opcode == "parameter":
            used.update(instruction.operands)
            kept.append(instruction)
    computation.instructions = kept[::-1]


def _drop_unreached(module: Module) -> None:
    """Remove functions that nothing applies."""
    reached = {module.entry}
    for computation in reversed(module.computations):
        if computation in reached:
            reached.update(called for item in computation.instructions for called in item.called)
    module.computations = [item for item in module.computations if item in reached]


def _strip(instruction: Instruction, module: Module) -> None:
    """Drop what is idle, and write groups in the old way."""
    exchanged: list[Field] = []
    if instruction.opcode in COLLECTIVES:
        try:
            exchanged = legacy(groups(instruction))
        except ValueError as error:
            where = origin(instruction, module)
            raise Unsupported(f"operation {instruction.opcode}: {error}; it comes from {where}") from None
    kept = [(number, value) for number, value in instruction.rest if number not in IDLE]
    instruction.rest = [*kept, *exchanged]


def _name_tensors(module: Module) -> None:
    """Name the parameters, and the elements of the result, which is a tuple."""
    root = module.entry.root
    if root.opcode != "tuple":
        raise Unsupported(f"the program ends in operation {root.opcode}, not in a tuple of results")
    for index, parameter in enumerate(module.entry.parameters):
        parameter.rest.append(_attribute("neff_input_names", input_name(index)))
    names = ",".join(output_name(index) for index in range(len(root.operands)))
    root.rest.append(_attribute("neff_output_names", names))


def _attribute(name: str, value: str) -> Field:
    entry = encode([(1, name.encode()), (2, value.encode())])
    return _I.ATTRIBUTES, encode([(1, entry)])
