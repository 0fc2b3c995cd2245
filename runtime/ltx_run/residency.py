"""Which programs a device's memory can hold at once, from the figures that the compiler gave."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ltx_run.bundle import Program, WeightInput
from ltx_run.console import human_bytes
from ltx_run.distribution import DTYPES, part_of
from ltx_run.errors import ProgramMismatch
from ltx_run.machine import Machine


def weight_bytes(program: Program) -> int:
    """Bytes of a program's weights on each device."""
    mesh, total = dict(program.mesh), 0
    for record in program.inputs:
        if isinstance(record, WeightInput):
            part = part_of(record.shape, record.spec, mesh, 0)
            size = math.prod(stop - start for start, stop in part)
            total += size * DTYPES[record.dtype].itemsize
    return total


def footprint(programs: Iterable[Program]) -> int:
    """Bytes on each device while programs are loaded together and one of them runs.

    Weight sets are there once, whatever programs share them; tensors, results and temporaries are those of
    the program that has most of them, since they come and go with each call.
    """
    weights: dict[str, int] = {}
    code = running = 0
    for program in programs:
        own = weight_bytes(program)
        if program.weights is not None:
            weights[program.weights] = max(own, weights.get(program.weights, 0))
        code += program.memory.code
        tensors = max(program.memory.arguments - own, 0)
        running = max(running, tensors + program.memory.outputs + program.memory.temp)
    return sum(weights.values()) + code + running


def check(programs: Mapping[str, Program], machine: Machine) -> None:
    """Refuse programs that don't fit into a device's memory even alone.

    Args:
        programs: That will run, by name.
        machine: Where.

    Raises:
        ProgramMismatch: Lists those that don't fit, with both sizes.
    """
    lines = []
    for name, program in programs.items():
        limit = machine.devices(program.fingerprint.platform).memory
        needed = footprint([program])
        if limit is not None and needed > limit:
            lines.append(f"{name} needs {human_bytes(needed)} on each device, which has {human_bytes(limit)}")
    if lines:
        raise ProgramMismatch(
            "programs don't fit into the devices' memory:\n  " + "\n  ".join(lines),
            hint="build it for more devices (target.tensor_parallel), a smaller variant or smaller tiles",
        )
