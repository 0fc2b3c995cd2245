"""What a target's module in the compile process has: devices to lower for, and the compile itself.

A backend module defines the two functions of `Backend`. It is imported in a compile process only, after the
target's environment is set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

import jax

from ltx_run.bundle import Census
from ltxbuild.compiler.census import census

if TYPE_CHECKING:
    from ltxbuild.compiler.lower import Lowered


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a compiler made.

    Attributes:
        code: The executable, serialized.
        runtime: Compiler and runtime build that can load it.
        features: Instruction-set features that the code may use (cpu), or the device kind and the topology.
        memory: Bytes per device: `arguments`, `outputs`, `temp` and `code`.
        census: What it exchanges and keeps; None where the compiler doesn't tell.
    """

    code: bytes
    runtime: str
    features: tuple[str, ...]
    memory: dict[str, int]
    census: Census | None = None


def in_order(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Devices by number, as the runtime numbers the ranks of a mesh."""
    return sorted(devices, key=lambda device: device.id)


def compile_for_topology(
    lowered: Lowered, machine: Mapping[str, Any], flags: Mapping[str, Any], compilers: Sequence[str]
) -> Compiled:
    """Compile through a client that has the devices of a topology and can't run anything.

    Args:
        lowered: What to compile; knows the devices.
        machine: The target's, with its topology.
        flags: Compiler flags.
        compilers: Packages whose versions must agree where the program is loaded, beside jaxlib.
    """
    compiled = lowered.module.compile(compiler_options=dict(flags))
    executable: Any = compiled.runtime_executable()
    code = executable.serialize()
    return Compiled(
        code=code,
        runtime=", ".join(f"{package} {version(package)}" for package in ("jaxlib", *compilers)),
        features=(lowered.device_kind, machine["topology"]),
        memory=memory_figures(compiled, len(code)),
        census=census(compiled.as_text() or ""),
    )


class Backend(Protocol):
    """The functions of a backend module."""

    def devices(self, machine: Mapping[str, Any], count: int) -> Sequence[jax.Device]:
        """Devices to lower a program for, present or not; `machine` is the target's, from the key."""

    def compile(self, lowered: Lowered, machine: Mapping[str, Any], flags: Mapping[str, Any]) -> Compiled:
        """Compile one lowered program."""


def memory_figures(compiled: jax.stages.Compiled, code: int) -> dict[str, int]:
    """Bytes per device, from XLA's own analysis."""
    memory: Any = compiled.memory_analysis()
    return {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "temp": memory.temp_size_in_bytes,
        "code": code,
    }
