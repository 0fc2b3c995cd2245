"""TPUs, compiled by libtpu on any machine."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fnmatch import fnmatch
from importlib.metadata import requires, version
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ltxbuild.errors import ToolMissing
from ltxbuild.targets.topology import known

if TYPE_CHECKING:
    from ltxbuild.targets.section import TargetSection


class Generation(NamedTuple):
    """One generation of chips.

    Attributes:
        kind: What its devices call themselves.
        cores: Devices per chip.
        shapes: Slices that are offered, in chips along each axis of the torus.
    """

    kind: str
    cores: int
    shapes: tuple[str, ...]


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")

GENERATIONS: Mapping[str, Generation] = MappingProxyType(
    {
        "v5e": Generation("TPU v5 lite", 1, _FLAT),
        "v5p": Generation("TPU v5", 1, _CUBES),
        "v6e": Generation("TPU v6 lite", 1, _FLAT),
        "tpu7x": Generation("TPU7x", 2, _CUBES),
    }
)

TOPOLOGIES: Mapping[str, int] = MappingProxyType(
    {
        f"{name}:{shape}": generation.cores * math.prod(map(int, shape.split("x")))
        for name, generation in GENERATIONS.items()
        for shape in generation.shapes
    }
)
"""Devices of each topology."""


class Tpu:
    """Google's TPUs."""

    platform = "tpu"
    packages: tuple[str, ...] = ("jax", "jaxlib", "libtpu")
    backend = "ltxbuild.compiler.tpu"
    assembler: str | None = None

    def runs(self, kind: str) -> bool:
        """Everything."""
        return True

    def flags(self, kind: str) -> Mapping[str, Any]:
        """None."""
        return {}

    def machine(self, section: TargetSection) -> dict[str, Any]:
        """The topology.

        Raises:
            RecipeError: It is missing or unknown, or the recipe's mesh has another number of devices.
        """
        return {"platform": "tpu", "topology": known(section, "tpu", TOPOLOGIES)}

    def tools(self, section: TargetSection) -> dict[str, str]:
        """None."""
        return {}

    def environment(self, machine: Mapping[str, Any], devices: int) -> dict[str, str]:
        """Keep libtpu from looking for the chips, the other hosts and the metadata server of a cloud.

        It is loaded by several processes at once, which it refuses otherwise: a lock file in /tmp is there to
        keep two programs off one chip, and none is opened here.
        """
        generation, _, _ = machine["topology"].partition(":")
        return {
            "JAX_PLATFORMS": "cpu",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "TPU_ACCELERATOR_TYPE": f"{generation}-{TOPOLOGIES[machine['topology']]}",
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost",
        }

    def check(self) -> None:
        """Refuse when libtpu is not installed, or not the one that the installed jax names.

        Others compile too, but jaxlib can't read what they made.
        """
        hint = "pip install 'ltxbuild[tpu]'"
        if find_spec("libtpu") is None:
            raise ToolMissing("compiling for tpu needs libtpu, which is not installed", hint=hint)
        wanted, installed = _fitting_libtpu(), version("libtpu")
        if not fnmatch(installed, wanted):
            message = f"jax {version('jax')} needs libtpu {wanted}, installed is {installed}"
            raise ToolMissing(message, hint=hint)


def _fitting_libtpu() -> str:
    """Version of libtpu, as a pattern, that belongs to the installed jax: its own extra names it."""
    named = (re.match(r"libtpu==([\d.*]+); extra == .tpu.", each) for each in requires("jax") or ())
    return next((match.group(1) for match in named if match), "*")
