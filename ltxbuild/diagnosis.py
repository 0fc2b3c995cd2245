"""What a machine can build and run: what is there, what is missing, and what to do about it.

Pure: `probe` looks, `cli.doctor` shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, NamedTuple

from ltx_run.console import human_bytes
from ltx_run.isa import LEVELS
from ltx_run.neuron.nrt import INSTALL as INSTALL_LIBNRT
from ltx_run.neuron.status import UPGRADE as UPGRADE_LIBNRT
from ltxbuild.neuron import toolchain

BUILD, RUN, SHARE, KEEP = "build", "run", "share", "keep"
INSTALL_BUILD = "pip install 'ltxbuild[build]'"
INSTALL_TPU = "pip install 'ltxbuild[tpu]'"
INSTALL_CUDA = "pip install 'ltxbuild[cuda13]'"
INSTALL_HUB = "pip install 'ltxbuild[hub]'"
INSTALL_NEURON_DRIVER = "sudo apt-get install aws-neuronx-dkms"
LOGIN = "hf auth login"
OLDEST_CUDA_DRIVER = 580
"""The first of NVIDIA's drivers that runs CUDA 13."""
WHOLE_BUNDLE = 75_000_000_000
"""Bytes of weights of the 22 B model with its text encoder."""
RUNTIME_OF: Mapping[str, str] = MappingProxyType(
    {"2.22": "2.29", "2.23": "2.30", "2.24": "2.31", "2.25": "2.32", "2.26": "2.33", "2.27": "2.34"}
)
"""The libnrt of the same SDK, by neuronx-cc; newer ones run what older compilers made."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found on a machine.

    Attributes:
        machine: Architecture, such as `x86_64`.
        features: Instruction-set features of the CPU, by LLVM's names; empty if they can't be read.
        packages: Versions of those installed packages that matter.
        pins: Versions of packages that programs for accelerators need, with `*` for any last number.
        gpus: Names of NVIDIA's GPUs.
        cuda_driver: Version of NVIDIA's driver; None if it is not loaded.
        tpu: Whether a TPU is attached.
        neuronx_cc: Where the program is; None if it is not on PATH.
        libnrt: Version of Neuron's runtime, empty if the file doesn't say; None if there is none.
        neuron_driver: Version of Neuron's driver; None if it is not loaded.
        neuron_devices: Number of chips.
        neuron_cores: Physical cores of each; None if that isn't told.
        logical_core: What the environment says of the size of logical cores; None if it doesn't.
        token: Whether there is a token for the Hugging Face Hub.
        home: The cache's folder.
        writable: Whether the cache can be written.
        free: Bytes free on its disk.
    """

    machine: str
    features: tuple[str, ...]
    packages: Mapping[str, str]
    pins: Mapping[str, str]
    gpus: tuple[str, ...]
    cuda_driver: str | None
    tpu: bool
    neuronx_cc: str | None
    libnrt: str | None
    neuron_driver: str | None
    neuron_devices: int
    neuron_cores: int | None
    logical_core: str | None
    token: bool
    home: str
    writable: bool
    free: int


class Part(NamedTuple):
    """Something that a use needs.

    Attributes:
        name: What it is, with what is wrong about what is there instead.
        found: What is there; None if it is missing.
        fix: How to get it: a command, if there is one.
    """

    name: str
    found: str | None
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One use of the machine.

    Attributes:
        area: A platform, or what else there is to set up.
        use: What it is for.
        parts: What it needs.
    """

    area: str
    use: str
    parts: tuple[Part, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    @property
    def missing(self) -> tuple[Part, ...]:
        """What isn't there."""
        return tuple(part for part in self.parts if part.found is None)

    def json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "for": self.area,
            "to": self.use,
            "ok": self.ok,
            "found": {part.name: part.found for part in self.parts if part.found is not None},
            "missing": {part.name: part.fix for part in self.missing},
        }


def diagnose(probe: Probe) -> tuple[Check, ...]:
    """Everything that can be done on a machine, and what it lacks for that."""
    jax = tuple(_package(probe, name, INSTALL_BUILD) for name in ("jax", "jaxlib"))
    nvcc, libtpu = _package(probe, "nvidia-cuda-nvcc", INSTALL_CUDA), _pinned(probe, "libtpu", INSTALL_TPU)
    return (
        Check("cpu", BUILD, jax),
        Check("cpu", RUN, (_package(probe, "jaxlib", "pip install ltxbuild"), _cpu(probe))),
        Check("cuda", BUILD, (_pinned(probe, "jax", INSTALL_CUDA), *_cuda_packages(probe), nvcc)),
        Check("cuda", RUN, (*_cuda_packages(probe), *_gpus(probe))),
        Check("tpu", BUILD, (_pinned(probe, "jax", INSTALL_TPU), libtpu)),
        Check("tpu", RUN, (libtpu, _tpu(probe))),
        Check("neuron", BUILD, (*jax, _neuronx_cc(probe))),
        Check("neuron", RUN, _neuron_run(probe)),
        Check("hub", SHARE, _hub(probe)),
        Check("cache", KEEP, _cache(probe)),
    )


def _package(probe: Probe, name: str, fix: str) -> Part:
    return Part(name, probe.packages.get(name), fix)


def _cpu(probe: Probe) -> Part:
    levels = [
        level
        for level, (machine, features) in LEVELS.items()
        if machine == probe.machine and set(features) <= set(probe.features)
    ]
    if not probe.features:
        return Part("CPU", None, "use Linux or macOS on x86_64 or aarch64")
    return Part("CPU", " ".join([probe.machine, *levels[-1:]]))


def _cuda_packages(probe: Probe) -> tuple[Part, ...]:
    names = ("jax-cuda13-plugin", "jax-cuda13-pjrt")
    return tuple(_package(probe, name, INSTALL_CUDA) for name in names)


def _pinned(probe: Probe, name: str, fix: str) -> Part:
    """A package of which another version would not do."""
    found, wanted = probe.packages.get(name), probe.pins.get(name, "*")
    if found is None or fnmatchcase(found, wanted):
        return Part(name, found, fix)
    return Part(f"{name} {wanted} ({found} is installed)", None, fix)


def _gpus(probe: Probe) -> tuple[Part, ...]:
    kinds = ", ".join(f"{probe.gpus.count(kind)} x {kind}" for kind in dict.fromkeys(probe.gpus))
    driver = Part("driver", probe.cuda_driver, "install NVIDIA's driver, 580 or newer")
    if probe.cuda_driver is not None and int(probe.cuda_driver.partition(".")[0]) < OLDEST_CUDA_DRIVER:
        old = f"driver {OLDEST_CUDA_DRIVER} or newer (it is {probe.cuda_driver})"
        driver = Part(old, None, f"update NVIDIA's driver to {OLDEST_CUDA_DRIVER} or newer")
    return driver, Part("GPU", kinds or None, "run on a machine with an H100 or H200")


def _tpu(probe: Probe) -> Part:
    return Part("TPU", "attached" if probe.tpu else None, "run on a TPU VM")


def _neuronx_cc(probe: Probe) -> Part:
    version = probe.packages.get("neuronx-cc")
    if version is not None and int(version.partition(".")[0]) < 2:
        return Part(f"neuronx-cc (PyPI's {version} is an empty stub)", None, toolchain.INSTALL)
    return Part("neuronx-cc", version or probe.neuronx_cc, toolchain.INSTALL)


def _neuron_run(probe: Probe) -> tuple[Part, ...]:
    library = Part(
        "libnrt", probe.libnrt or (None if probe.libnrt is None else "unknown version"), INSTALL_LIBNRT
    )
    driver = Part("driver", probe.neuron_driver, INSTALL_NEURON_DRIVER)
    return (library, *_older_libnrt(probe), driver, _chips(probe))


def _older_libnrt(probe: Probe) -> tuple[Part, ...]:
    """The runtime that the compiler here asks for, if the one that is here is older."""
    compiler, found = probe.packages.get("neuronx-cc", ""), _numbers(probe.libnrt or "")
    wanted = RUNTIME_OF.get(".".join(compiler.split(".")[:2]))
    if wanted is None or not found or found >= _numbers(wanted):
        return ()
    return (Part(f"libnrt {wanted}, the one for neuronx-cc {compiler}", None, UPGRADE_LIBNRT),)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()


def _chips(probe: Probe) -> Part:
    if not probe.neuron_devices:
        return Part("chip", None, "run on a trn2 instance")
    size = probe.logical_core or "2"
    cores = f", {probe.neuron_cores} cores each" if probe.neuron_cores else ""
    if size != "2":
        wrong = f"logical cores of 2 physical ones (NEURON_LOGICAL_NC_CONFIG is {size})"
        return Part(wrong, None, "unset NEURON_LOGICAL_NC_CONFIG")
    return Part("chip", f"{probe.neuron_devices}{cores}, LNC {size}")


def _hub(probe: Probe) -> tuple[Part, ...]:
    token = Part("token", "there" if probe.token else None, f"{LOGIN} (gated models such as Gemma need it)")
    return _package(probe, "huggingface-hub", INSTALL_HUB), token


def _cache(probe: Probe) -> tuple[Part, ...]:
    folder = Part(
        "folder", probe.home if probe.writable else None, "set LTX_HOME to a folder that can be written"
    )
    space = f"{human_bytes(probe.free)}; the 22 B model takes {human_bytes(WHOLE_BUNDLE)}"
    return folder, Part("free", space)
