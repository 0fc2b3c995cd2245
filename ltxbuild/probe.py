"""Looking at this machine, for `ltxbuild doctor`: files and package metadata alone, nothing is started."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from ltx_cache.home import home
from ltx_run.errors import DeviceUnavailable
from ltx_run.fingerprint import host_features
from ltx_run.neuron import nrt
from ltx_run.platforms import tpu
from ltxbuild.diagnosis import Probe

PACKAGES = (
    *("jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda13-pjrt", "nvidia-cuda-nvcc"),
    *("libtpu", "neuronx-cc", "huggingface-hub"),
)
_PIN = re.compile(r"(jax|libtpu)(?:\[\w+\])?==([\d.*]+)")
ARCHITECTURES: Mapping[str, str] = {"amd64": "x86_64", "arm64": "aarch64"}


def look(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> Probe:
    """What is on this machine.

    Args:
        root: Of the file systems that tell of devices.
        environment: Variables.
    """
    machine = platform.machine().lower()
    folder = home()
    there = next(parent for parent in (folder, *folder.parents) if _exists(parent))
    return Probe(
        machine=ARCHITECTURES.get(machine, machine),
        features=_features(),
        packages={name: found for name in PACKAGES if (found := _version(name))},
        pins=_pins(),
        gpus=_gpus(root),
        cuda_driver=_cuda_driver(root),
        tpu=tpu.PLUGIN.attached(),
        neuronx_cc=shutil.which("neuronx-cc", path=environment.get("PATH")),
        libnrt=_libnrt(environment),
        neuron_driver=_text(root / "sys/module/neuron/version"),
        neuron_devices=sum(path.name[6:].isdecimal() for path in (root / "dev").glob("neuron*")),
        neuron_cores=_number(root / "sys/devices/virtual/neuron_device/neuron0/core_count"),
        logical_core=environment.get("NEURON_LOGICAL_NC_CONFIG"),
        token=_token(environment),
        home=str(folder),
        writable=os.access(there, os.W_OK),
        free=_free(there),
    )


def _exists(path: Path) -> bool:
    """Whether something is there; what this user may not look for isn't."""
    try:
        return path.exists()
    except OSError:
        return False


def _free(path: Path) -> int:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


def _features() -> tuple[str, ...]:
    try:
        return host_features()
    except DeviceUnavailable:
        return ()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _pins() -> dict[str, str]:
    """Versions that extras of this project ask for."""
    pinned = (_PIN.match(line) for line in requires("ltxbuild") or ())
    return {pin[1]: pin[2] for pin in pinned if pin}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path) or ""
    return int(text) if text.isdecimal() else None


def _gpus(root: Path) -> tuple[str, ...]:
    files: Iterable[Path] = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    models = (re.search(r"^Model:\s*(.+)$", _text(file) or "", re.MULTILINE) for file in files)
    return tuple(model[1] for model in models if model)


def _cuda_driver(root: Path) -> str | None:
    said = _text(root / "proc/driver/nvidia/version") or ""
    found = re.search(r"Kernel Module.*?\s(\d+\.\d[\d.]*)", said)
    return found[1] if found else _text(root / "sys/module/nvidia/version")


def _libnrt(environment: Mapping[str, str]) -> str | None:
    """Version of the runtime library: the file that its name leads to ends with it."""
    try:
        file = nrt.find(environment).resolve()
    except (DeviceUnavailable, OSError):  # the second: a folder of LD_LIBRARY_PATH is not for this user
        return None
    return file.name.partition(".so.")[2] if file.name.count(".") > 2 else ""


def _token(environment: Mapping[str, str]) -> bool:
    """Whether huggingface_hub would find a token; it is not read."""
    if any(environment.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        return True
    cache = Path(environment.get("XDG_CACHE_HOME") or "~/.cache")
    folder = Path(environment.get("HF_HOME") or cache / "huggingface")
    try:
        file = Path(environment.get("HF_TOKEN_PATH") or folder / "token").expanduser()
        return file.is_file() and file.stat().st_size > 0
    except (RuntimeError, OSError):  # nobody's home, or one that is not for this user
        return False
