"""Compile process, neuron: from a sharded program to one rank's graph. The NEFF is made of it elsewhere."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ltx_run.bundle import TensorSpec
from ltx_run.distribution import Distribution
from ltxbuild.compiler.backend import Compiled
from ltxbuild.compiler.lower import Lowered
from ltxbuild.neuron.census import census
from ltxbuild.neuron.clean import cleaned
from ltxbuild.neuron.hlo import write
from ltxbuild.neuron.partition import partitioned


def devices(machine: Mapping[str, Any], count: int) -> Sequence[jax.Device]:
    """Devices of the host in the place of the chip's."""
    return jax.devices()[:count]


def compile(lowered: Lowered, machine: Mapping[str, Any], flags: Mapping[str, Any]) -> Compiled:
    """The graph, and what is known of it before it is compiled."""
    bytecode = io.BytesIO()
    module: Any = lowered.module.compiler_ir("stablehlo")
    module.operation.write_bytecode(bytecode)
    ranks = math.prod(lowered.mesh.values())
    graph = cleaned(partitioned(bytecode.getvalue(), ranks))
    code = write(graph)
    memory = {
        "arguments": sum(_part_bytes(record, lowered.mesh) for record in lowered.inputs),
        "outputs": sum(_part_bytes(record, lowered.mesh) for record in lowered.outputs),
        "temp": 0,
        "code": len(code),
    }
    return Compiled(code=code, runtime="", features=(), memory=memory, census=census(graph))


def _part_bytes(record: TensorSpec, mesh: Mapping[str, int]) -> int:
    """Bytes of one rank's part."""
    part = Distribution.of(record.shape, record.dtype, record.spec, mesh)
    return math.prod(part.part_shape) * part.dtype.itemsize
