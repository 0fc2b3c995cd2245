"""NVIDIA GPUs, compiled by XLA and NVIDIA's assembler on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ltxbuild.errors import ToolMissing
from ltxbuild.targets.topology import known

if TYPE_CHECKING:
    from ltxbuild.targets.section import TargetSection


class Gpu(NamedTuple):
    """One model of GPU, as XLA's code generator and cost model want to know it.

    What all of a compute capability have in common is in `compiler.cuda`.

    Attributes:
        kind: What its devices call themselves.
        capability: Compute capability, major and minor.
        cores: Streaming multiprocessors.
        clock: Of these, in GHz.
        l2: Bytes of L2 cache.
        memory: Bytes that the driver reports.
        bandwidth: Of the memory, bytes per second.
    """

    kind: str
    capability: tuple[int, int]
    cores: int
    clock: float
    l2: int
    memory: int
    bandwidth: int


GPUS: Mapping[str, Gpu] = MappingProxyType(
    {
        "h100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 1.98, 50 << 20, 84_929_347_584, 3_352_320_000_000),
        "h200": Gpu("NVIDIA H200", (9, 0), 132, 1.98, 60 << 20, 150_754_820_096, 4_800_000_000_000),
    }
)

TOPOLOGIES: Mapping[str, int] = MappingProxyType(
    {f"{name}:{count}" if count > 1 else name: count for name in GPUS for count in (1, 2, 4, 8)}
)
"""Devices of each topology: GPUs of one host, joined by NVLink."""


class Cuda:
    """NVIDIA's GPUs."""

    platform = "cuda"
    packages: tuple[str, ...] = (
        "jax",
        "jaxlib",
        "jax-cuda13-plugin",
        "jax-cuda13-pjrt",
        "nvidia-cublas",
        "nvidia-cuda-nvcc",
        "nvidia-cudnn-cu13",
        "nvidia-nvjitlink",
    )
    backend = "ltxbuild.compiler.cuda"
    assembler: str | None = None

    def runs(self, kind: str) -> bool:
        """Everything."""
        return True

    def flags(self, kind: str) -> Mapping[str, Any]:
        """The official rounding."""
        return {"xla_allow_excess_precision": False}

    def machine(self, section: TargetSection) -> dict[str, Any]:
        """The topology.

        Raises:
            RecipeError: It is missing or unknown, or the recipe's mesh has another number of devices.
        """
        return {"platform": "cuda", "topology": known(section, "cuda", TOPOLOGIES)}

    def tools(self, section: TargetSection) -> dict[str, str]:
        """None."""
        return {}

    def environment(self, machine: Mapping[str, Any], devices: int) -> dict[str, str]:
        """Where NVIDIA's assembler is. No GPU is looked for: what is compiled here is not run here."""
        return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_gpu_cuda_data_dir={_toolkit()}"}

    def check(self) -> None:
        """Refuse when NVIDIA's packages or XLA's plugin for them are not installed."""
        if _toolkit() is None or find_spec("jax_cuda13_plugin") is None:
            raise ToolMissing(
                "compiling for cuda needs XLA's plugin and NVIDIA's toolkit (4.4 GB), not installed here",
                hint="pip install 'ltxbuild[cuda13]'",
            )


def _toolkit() -> Path | None:
    """Folder of the CUDA toolkit that pip has installed."""
    packages = find_spec("nvidia")
    folders = list(packages.submodule_search_locations or ()) if packages else []
    return next((path for folder in folders if (path := Path(folder) / "cu13").is_dir()), None)
