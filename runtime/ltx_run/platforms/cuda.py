"""NVIDIA's GPUs, through XLA's plugin."""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from pathlib import Path

from ltx_run.bundle import Fingerprint
from ltx_run.devices import Devices
from ltx_run.peers import Peers
from ltx_run.platforms import Obstacle, plugin

_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")
"""What the driver shows of a GPU: on Linux, and on Linux inside Windows."""
_LIBRARIES = (
    *("cu13/lib/libcudart.so.13", "cu13/lib/libnvrtc.so.13", "cu13/lib/libnvJitLink.so.13"),
    *("cu13/lib/libcublasLt.so.13", "cu13/lib/libcublas.so.13", "cu13/lib/libcupti.so.13"),
    *("cu13/lib/libcusparse.so.12", "cu13/lib/libcusolver.so.12", "cu13/lib/libcufft.so.12"),
    *("nccl/lib/libnccl.so.2", "cudnn/lib/libcudnn.so.9"),
)
"""In packages of NVIDIA's, each after those that it needs; the plugin looks for them by name alone."""


def _folders(package: str) -> list[Path]:
    found = find_spec(package)
    return [Path(folder) for folder in (found.submodule_search_locations or ())] if found else []


def _library() -> Path | None:
    files = (folder / "xla_cuda13" / "xla_cuda_plugin.so" for folder in _folders("jax_plugins"))
    return next((file for file in files if file.is_file()), None)


def _options(peers: Peers) -> plugin.Options:
    """Memory grows with use, since what a bundle needs is known; each process has the GPUs of its host."""
    for folder in _folders("nvidia"):
        for library in _LIBRARIES:
            if (folder / library).is_file():
                ctypes.CDLL(str(folder / library))
    return {
        "platform_name": "cuda",
        "allocator": "default",
        "preallocate": False,
        "memory_fraction": 0.95,
        "node_id": peers.index,
        "num_nodes": peers.count,
    }


_PLUGIN = plugin.Plugin(
    platform="cuda",
    devices="NVIDIA GPU",
    extra="cuda13",
    whole=False,
    library=_library,
    attached=lambda: any(Path(file).exists() for file in _FILES),
    options=_options,
)


def obstacles(needed: Fingerprint, peers: Peers) -> tuple[Obstacle, ...]:
    """Packages or GPUs that this machine doesn't have."""
    return plugin.obstacles(_PLUGIN, needed, peers)


def native(needed: Fingerprint, peers: Peers) -> Fingerprint | tuple[Obstacle, ...]:
    """The GPUs that are here."""
    return plugin.native(_PLUGIN, needed, peers)


def devices(count: int, peers: Peers) -> Devices:
    """All GPUs that the process may use."""
    return plugin.devices(_PLUGIN, peers)
