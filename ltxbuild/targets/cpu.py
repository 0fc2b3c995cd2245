"""CPUs: compiled by XLA on this machine, for this machine or a portable instruction set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ltx_run.fingerprint import compiler_features

if TYPE_CHECKING:
    from ltxbuild.targets.section import TargetSection

SMALL = "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
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
        """The official rounding: without it, fused bf16 operations stay in f32 between each other.

        And small memory: by default what waits for nothing is made first, and held until wanted. Not in the
        vocoder, which is small, and whose three branches then run one after another.
        """
        rounding = {"xla_allow_excess_precision": False}
        return rounding if kind == "vocoder" else {**rounding, "xla_cpu_scheduler_type": SMALL}

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
