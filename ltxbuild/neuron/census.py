"""What one rank's graph exchanges with the others."""

from __future__ import annotations

import math
from collections import Counter

from ltx_run.bundle import Census, Collective
from ltxbuild.neuron.groups import groups
from ltxbuild.neuron.hlo import DIMENSIONS, ELEMENT_TYPE, Module
from ltxbuild.neuron.operations import COLLECTIVES
from ltxbuild.neuron.wire import fields, numbers

ITEMSIZE = {1: 1, 2: 1, 4: 4, 6: 1, 8: 4, 10: 2, 11: 4, 16: 2}
"""Bytes of an element, by `PrimitiveType`."""


def census(graph: Module) -> Census:
    """Count the collectives of a graph; one in a loop counts once. What it keeps is up to its compiler."""
    counts: Counter[tuple[str, int]] = Counter()
    sizes: Counter[tuple[str, int]] = Counter()
    for instruction in graph.instructions:
        if instruction.opcode in COLLECTIVES:
            kind = instruction.opcode, len(groups(instruction)[0])
            counts[kind] += 1
            sizes[kind] += _bytes(instruction.shape)
    collectives = (
        Collective(kind=kind, group=group, loops=(), count=count, bytes=sizes[kind, group])
        for (kind, group), count in sorted(counts.items())
    )
    return Census(collectives=tuple(collectives), temporaries=())


def _bytes(shape: bytes) -> int:
    """Bytes of an array."""
    once = dict(fields(shape))
    kind = once[ELEMENT_TYPE]
    assert isinstance(kind, int)
    return ITEMSIZE[kind] * math.prod(numbers(once.get(DIMENSIONS, b"")))
