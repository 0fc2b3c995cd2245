"""NVIDIA GPUs, compiled by XLA and NVIDIA's assembler on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ltxbuild.errors import ToolMissing

if TYPE_CHECKING:
    from ltxbuild.recipe import TargetSection


class Cuda:
    """The platform `cuda`."""

    platform = "cuda"
    packages: tuple[str, ...] = ("jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda13-pjrt")
    flags: Mapping[str, Any] = MappingProxyType({"xla_allow_excess_precision": False})
    backend = "ltxbuild.compiler.cuda"

    def runs(self, kind: str) -> bool:
        """Everything."""
        return True

    def machine(self, section: TargetSection) -> dict[str, Any]:
        """The device topology."""
        return {"platform": "cuda", "topology": section.topology}

    def environment(self, machine: Mapping[str, Any], devices: int) -> dict[str, str]:
        """Nothing beside the scrubbed environment."""
        return {}

    def check(self) -> None:
        """Refuse: this version has no compile step for it."""
        raise ToolMissing(
            "this version cannot compile for cuda yet",
            hint="look at what it would need: ltxbuild plan RECIPE --programs-only",
        )
