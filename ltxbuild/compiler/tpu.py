"""Compile process, tpu: libtpu compiles for chips that are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.experimental import topologies

from ltxbuild.compiler.backend import Compiled, compile_for_topology, in_order
from ltxbuild.compiler.lower import Lowered

_HOSTS = {"1x1": (1, 1, 1), "1x1x1": (1, 1, 1), "2x4": (2, 4, 1)}
"""Chips of one host along each axis where it isn't a square of four: single chips and the host of eight."""


def devices(machine: Mapping[str, Any], count: int) -> Sequence[jax.Device]:
    """The first devices of the topology."""
    shape = machine["topology"].partition(":")[2]
    bounds = _HOSTS.get(shape, (2, 2, 1))
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name=machine["topology"], chips_per_host_bounds=bounds
    )
    return in_order(topology.devices)[:count]


def compile(lowered: Lowered, machine: Mapping[str, Any], flags: Mapping[str, Any]) -> Compiled:
    """Compile for the topology that the program was lowered for."""
    return compile_for_topology(lowered, machine, flags, ("libtpu",))
