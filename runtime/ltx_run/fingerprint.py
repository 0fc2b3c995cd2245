"""What this machine can execute, in the words that bundles use.

A CPU fingerprint lists the instruction-set features that the code may use, by LLVM's names, and two more
words: the operating system and the architecture, because object code is made for both. Features that no
code generator emits (such as `constant_tsc`) are left out, so that equal CPUs agree whatever kernel they run.

Example:
    >>> "x86_64" in isa_features("native") or "aarch64" in isa_features("native")
    True
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ltx_run.bundle import Fingerprint
from ltx_run.errors import DeviceUnavailable
from ltx_run.isa import ARM_DARWIN, ARM_LINUX, KNOWN, LEVELS, NEWER, X86_LINUX

_ARCHITECTURES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}


def runtime_version() -> str:
    """Compiler and runtime build of this installation; executables are only exchanged between equal ones."""
    from jaxlib.version import __version__

    return f"jaxlib {__version__}"


def architecture() -> str:
    """`x86_64` or `aarch64`.

    Raises:
        DeviceUnavailable: Any other.
    """
    machine = platform.machine().lower()
    if machine not in _ARCHITECTURES:
        raise DeviceUnavailable(f"CPU programs need an x86_64 or aarch64 machine, this one is {machine}")
    return _ARCHITECTURES[machine]


@cache
def host_features() -> tuple[str, ...]:
    """Features of this machine's CPU, its architecture and operating system, sorted.

    Raises:
        DeviceUnavailable: They can't be read on this operating system.
    """
    if sys.platform == "linux":
        features = parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace"))
    elif sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "hw.optional"]
        features = parse_sysctl(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    else:
        raise DeviceUnavailable(
            f"the CPU's features can't be read on {sys.platform}", hint="use Linux or macOS"
        )
    return _with_system(features)


def parse_cpuinfo(text: str) -> set[str]:
    r"""Features in the text of Linux' /proc/cpuinfo that all its processors have.

    >>> sorted(parse_cpuinfo("flags\t: fpu sse4_1 abm constant_tsc"))
    ['lzcnt', 'sse4.1']
    """
    names = X86_LINUX if re.search(r"^flags\s*:", text, re.MULTILINE) else ARM_LINUX
    processors = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    common = set.intersection(*(set(line.split()) for line in processors)) if processors else set()
    return {names[flag] for flag in common if flag in names}


def parse_sysctl(text: str) -> set[str]:
    r"""Features in the output of macOS' `sysctl hw.optional` on Apple silicon.

    >>> sorted(parse_sysctl("hw.optional.arm.FEAT_BF16: 1\nhw.optional.arm.FEAT_I8MM: 0"))
    ['bf16']
    """
    present = re.findall(r"^hw\.optional\.(?:arm\.)?(\w+): 1$", text, re.MULTILINE)
    return {ARM_DARWIN[name] for name in present if name in ARM_DARWIN}


def isa_features(isa: str) -> tuple[str, ...]:
    """Features that code compiled on this machine for `isa` may use, sorted.

    Args:
        isa: `native` for all of this machine's, or a key of `LEVELS`.

    Raises:
        DeviceUnavailable: The level belongs to another architecture than this machine's.
    """
    if isa == "native":
        return host_features()
    needed, features = LEVELS[isa]
    if needed != architecture():
        raise DeviceUnavailable(
            f"isa {isa} is code for {needed}, and this machine compiles for {architecture()}",
            hint="use isa: native, or build on the other architecture",
        )
    return _with_system(features)


def compiler_features(isa: str) -> tuple[str, ...]:
    """Features that a compiler on this machine has when it is limited to `isa`, sorted.

    More than `isa_features(isa)` where this machine has extensions that no limit takes away.

    Raises:
        DeviceUnavailable: See `isa_features`.
    """
    if isa == "native":
        return host_features()
    isa_features(isa)
    return tuple(name for name in host_features() if not name.startswith(NEWER[isa]))


def code_features(executable: bytes) -> tuple[str, ...]:
    """Features that the compiler was allowed to use for a serialized CPU executable, sorted.

    The executable carries LLVM's feature string. It can hold more than the level asked for: a limit such as
    AVX2 keeps the newer vector sets out, but not the build machine's other extensions.

    Raises:
        ValueError: The bytes hold no feature string.
    """
    found = re.search(rb"(?:[+-][a-z0-9.\-]+,){15,}[+-][a-z0-9.\-]+", executable)
    if found is None:
        raise ValueError("no feature string in the executable")
    enabled = {word[1:] for word in found.group().decode("ascii").split(",") if word.startswith("+")}
    return _with_system(enabled & KNOWN)


def _with_system(features: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*features, architecture(), sys.platform}))


def native(devices: int) -> Fingerprint:
    """Fingerprint of code compiled on and for this machine."""
    return Fingerprint(platform="cpu", runtime=runtime_version(), features=host_features(), devices=devices)
