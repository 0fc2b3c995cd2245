"""Trainium2, compiled by neuronx-cc on any x86 machine."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ltxbuild.errors import RecipeError, ToolMissing
from ltxbuild.neuron import toolchain
from ltxbuild.targets.topology import known

if TYPE_CHECKING:
    from ltxbuild.targets.section import TargetSection

TOPOLOGIES: Mapping[str, int] = MappingProxyType({"trn2": 4})
"""Devices of each topology: the logical cores of one chip, of two physical ones each."""


class Neuron:
    """AWS's Trainium2."""

    platform = "neuron"
    packages: tuple[str, ...] = ("jax", "jaxlib")
    backend = "ltxbuild.compiler.neuron"
    assembler: str | None = "ltxbuild.neuron.assembly"

    def runs(self, kind: str) -> bool:
        """The text encoder and the transformer; what is small beside them runs on the host."""
        return kind in ("text_encoder", "denoise", "denoise_from", "denoise_step")

    def flags(self, kind: str) -> Mapping[str, Any]:
        """`none` keeps the dtypes of the program; the rest is what ports of this model compile with."""
        return {
            "auto-cast": "none",
            "lnc": 2,
            "model-type": "transformer",
            "optlevel": 1,
            "tensorizer-options": "--enable-ccop-compute-overlap",
        }

    def machine(self, section: TargetSection) -> dict[str, Any]:
        """The topology.

        Raises:
            RecipeError: It is missing or unknown, or the recipe doesn't take all its devices.
        """
        topology = known(section, "neuron", TOPOLOGIES)
        if section.devices == 1:
            raise RecipeError(
                "platform neuron splits programs over the cores of a chip; the recipe takes one",
                hint=f"set target.profile: trn2 and target.tensor_parallel: {TOPOLOGIES[topology]}",
            )
        return {"platform": "neuron", "topology": topology}

    def tools(self, section: TargetSection) -> dict[str, str]:
        """Version of neuronx-cc: the recipe's, or that of the one here."""
        found = toolchain.find()
        return {"neuronx-cc": section.compiler or (found.version if found else "not installed")}

    def environment(self, machine: Mapping[str, Any], devices: int) -> dict[str, str]:
        """As many host devices as ranks: XLA partitions for them. Refusals name the model's lines."""
        return {
            "JAX_PLATFORMS": "cpu",
            "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "10",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }

    def check(self) -> None:
        """Refuse when neuronx-cc is not installed."""
        if toolchain.find() is None:
            raise ToolMissing("neuronx-cc is not installed", hint=toolchain.INSTALL)
