"""Trainium, compiled by neuronx-cc."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ltxbuild.errors import ToolMissing

if TYPE_CHECKING:
    from ltxbuild.recipe import TargetSection


class Neuron:
    """The platform `neuron`."""

    platform = "neuron"
    packages: tuple[str, ...] = ("jax", "jaxlib", "neuronx-cc")
    flags: Mapping[str, Any] = MappingProxyType({})
    backend = "ltxbuild.compiler.neuron"

    def runs(self, kind: str) -> bool:
        """The text encoder and the transformer; what is small beside them runs on the host."""
        return kind in ("text_encoder", "denoise", "denoise_from", "denoise_step")

    def machine(self, section: TargetSection) -> dict[str, Any]:
        """The device topology."""
        return {"platform": "neuron", "topology": section.topology}

    def environment(self, machine: Mapping[str, Any], devices: int) -> dict[str, str]:
        """Nothing beside the scrubbed environment."""
        return {}

    def check(self) -> None:
        """Refuse: this version has no compile step for it."""
        raise ToolMissing(
            "this version cannot compile for neuron yet",
            hint="look at what it would need: ltxbuild plan RECIPE --programs-only",
        )
