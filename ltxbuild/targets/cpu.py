"""CPUs: compiled by XLA on this machine, for this machine or a portable instruction set."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ltx_run.fingerprint import compiler_features

if TYPE_CHECKING:
    from ltxbuild.targets.section import TargetSection

FLAGS: Mapping[str, Any] = MappingProxyType(
    {
        "xla_allow_excess_precision": False,
        "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
    }
)
"""The official rounding, small memory, and little to make ready.

Without the first, fused bf16 operations stay in f32 between each other. By default what waits for nothing is
made first, and held until wanted. And a library that XLA:CPU brings makes convolutions and norms beside
products: it needs milliseconds for each convolution's first call, and writes out what it takes into a norm.
"""
MAX_ISA = {"sse4": "SSE4_2", "avx2": "AVX2", "avx512": "AVX512"}


class Cpu:
    """The CPU of a machine like this one."""

    platform = "cpu"
    packages: tuple[str, ...] = ("jax", "jaxlib")
    backend = "ltxbuild.compiler.cpu"
    assembler: str | None = None

    def runs(self, kind: str) -> bool:
        """Everything."""
        return True

    def flags(self, kind: str) -> Mapping[str, Any]:
        """The same for every program."""
        return FLAGS

    def machine(self, section: TargetSection) -> dict[str, Any]:
        """Instruction set, and what the compiler has of it here."""
        return {
            "platform": "cpu",
            "isa": section.isa,
            "features": list(compiler_features(section.isa)),
        }

    def tools(self, section: TargetSection) -> dict[str, str]:
        """None."""
        return {}

    def environment(self, machine: Mapping[str, Any], devices: int) -> dict[str, str]:
        """Device count and instruction-set limit: XLA takes both from the environment alone."""
        flags = [f"--xla_force_host_platform_device_count={devices}"]
        if machine["isa"] != "native":
            flags.append(f"--xla_cpu_max_isa={MAX_ISA[machine['isa']]}")
        return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}

    def check(self) -> None:
        """The compiler comes with jaxlib."""
