"""What a compiled program exchanges between devices and keeps in memory, read off its optimised HLO text.

The text is XLA's own account after partitioning and scheduling, for any target. A collective inside loops is
counted once per iteration, with the trip counts of the loops around it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from ltx_run.bundle import Census, Collective, Temporary

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
LARGEST = 10
"""Temporaries that a census lists."""
NO_MEMORY = frozenset(
    {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call"}
)
"""Operations whose result is another's memory, or none that a run allocates."""

CALLS = frozenset({"call", "call-start"})
"""Operations that execute what they apply once, as TPU v7 does gathers; others apply it to each element."""

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"(?:calls|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_APPLIED = re.compile(r"to_apply=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CHAIN = re.compile(r"channel_id=(\d+).*chain_id=\"(\d+)\"")
_NAME = re.compile(r'op_name="([^"]*)"')


@dataclass(frozen=True, slots=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    rest: str


_Computations = Mapping[str, list[_Instruction]]


def census(text: str) -> Census:
    """Count the collectives of a program and find its largest temporaries.

    Args:
        text: Optimised HLO, as `jax.stages.Compiled.as_text` gives it.

    Returns:
        Collectives in order of their bytes, equal ones together, and the largest results of single
        operations. A loop whose trip count can't be read counts once.
    """
    entry, computations = _parse(text)
    partitions = int(found[1]) if (found := re.search(r"num_partitions=(\d+)", text)) else 1
    counts: Counter[tuple[str, int, tuple[int, ...]]] = Counter()
    sizes: Counter[tuple[str, int, tuple[int, ...]]] = Counter()
    chains: set[tuple[object, ...]] = set()
    largest: dict[tuple[str, str], Temporary] = {}
    for instruction, loops, fused in _walk(entry, computations, ()):
        kind = instruction.opcode.removesuffix("-start")
        if kind in KINDS and _is_first_piece(instruction, loops, chains):
            group = _group(instruction.rest, partitions)
            counts[kind, group, loops] += 1
            sizes[kind, group, loops] += _payload(instruction, kind, group)
        if not fused and instruction.opcode not in NO_MEMORY and not instruction.opcode.endswith("-start"):
            made = _temporary(instruction)
            largest[made.shape, made.origin] = made
    collectives = [
        Collective(kind=kind, group=group, loops=loops, count=count, bytes=sizes[kind, group, loops])
        for (kind, group, loops), count in counts.items()
    ]
    collectives.sort(key=lambda each: (-each.bytes * prod(each.loops), each.kind, each.group, each.loops))
    temporaries = sorted(largest.values(), key=lambda each: (-each.bytes, each.shape, each.origin))
    return Census(collectives=tuple(collectives), temporaries=tuple(temporaries[:LARGEST]))


def _parse(text: str) -> tuple[str, _Computations]:
    """Name of the entry computation, and the instructions of each computation."""
    entry, inside = "", None
    computations: dict[str, list[_Instruction]] = {}
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            inside = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif inside is not None and (found := _INSTRUCTION.match(line)):
            inside.append(_Instruction(found[2], found[3], found[4], found[5]))
    return entry, computations


def _walk(
    name: str, computations: _Computations, loops: tuple[int, ...], fused: bool = False
) -> Iterator[tuple[_Instruction, tuple[int, ...], bool]]:
    """Every instruction that a computation executes, the trip counts around it, and whether it is fused."""
    for each in computations.get(name, ()):
        yield each, loops, fused
        around = (*loops, _trips(each, computations)) if each.opcode == "while" else loops
        within = fused or each.opcode == "fusion"
        called = _CALLED.findall(each.rest) + (_APPLIED.findall(each.rest) if each.opcode in CALLS else [])
        for names in _BRANCHES.findall(each.rest):
            called += [branch.strip().lstrip("%") for branch in names.split(",")]
        for other in called:
            yield from _walk(other, computations, around, within)


def _is_first_piece(
    instruction: _Instruction, loops: tuple[int, ...], chains: set[tuple[object, ...]]
) -> bool:
    """Whether a collective was not met before: libtpu spreads one over several fusions, linked by a chain."""
    link = _CHAIN.search(instruction.rest)
    if link is None:
        return True
    chain = (loops, *link.groups())
    new = chain not in chains
    chains.add(chain)
    return new


def _trips(loop: _Instruction, computations: _Computations) -> int:
    """Iterations of a loop: as the compiler notes them, or the bound that its condition compares with."""
    if noted := _TRIPS.search(loop.rest):
        return int(noted[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
    instructions = computations.get(condition[1], ()) if condition else ()
    bounds = [int(each.rest.partition(")")[0]) for each in instructions if _is_bound(each)]
    return bounds[0] if len(bounds) == 1 else 1


def _is_bound(instruction: _Instruction) -> bool:
    return instruction.opcode == "constant" and bool(re.match(r"\d+\)", instruction.rest))


def _group(rest: str, partitions: int) -> int:
    """Devices that take part in one exchange.

    Groups are written out (`{{0,1},{2,3}}`), as an arrangement (`[groups,size]<=[...]`), or as axes of a mesh
    (`mesh['a'=2,'b'=4] {'b'}`, where `'b':(2)2` is a part of an axis).
    """
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return listed[1].count(",") + 1
    if arranged := re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest):
        return int(arranged[1])
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        return prod(int(part or sizes[axis]) for axis, part in axes)
    return partitions


def _payload(instruction: _Instruction, kind: str, group: int) -> int:
    """Bytes of the whole array that is exchanged, as one device sees it."""
    shape = instruction.shape
    if instruction.opcode in ("all-gather-start", "collective-permute-start"):
        shape = _elements(shape)[1]  # operand, result, and what the hardware needs
    return _bytes(shape) * (group if kind == "reduce-scatter" else 1)


def _elements(shape: str) -> list[str]:
    """The parts of a tuple's shape."""
    parts, depth = [""], 0
    for char in shape.strip()[1:-1]:
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _bytes(shape: str) -> int:
    return sum(_size(dtype, dims) for dtype, dims, _ in _SHAPE.findall(shape))


def _size(dtype: str, dimensions: str) -> int:
    """Bytes of an array; types of less than a byte take a whole one."""
    bits = re.search(r"\d+", dtype)
    itemsize = max(int(bits[0]) // 8, 1) if bits else 1
    return itemsize * prod(map(int, filter(None, dimensions.split(","))))


def _temporary(instruction: _Instruction) -> Temporary:
    """What an operation leaves in main memory, without what stays in a core's own (`S(1)` on TPU)."""
    kept = [(dtype, dims) for dtype, dims, layout in _SHAPE.findall(instruction.shape) if "S(" not in layout]
    origin = found[1] if (found := _NAME.search(instruction.rest)) else ""
    # The last parts of the path say what it is; those before are the same for everything in a loop.
    return Temporary(
        bytes=sum(_size(dtype, dims) for dtype, dims in kept),
        shape=", ".join(f"{dtype}[{dims}]" for dtype, dims in kept),
        opcode=instruction.opcode,
        origin="/".join(origin.split("/")[-2:]),
    )
