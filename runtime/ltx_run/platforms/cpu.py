"""The CPU of this machine, as any number of devices."""

from __future__ import annotations

from ltx_run.bundle import Fingerprint
from ltx_run.devices import Devices
from ltx_run.fingerprint import host_features, runtime_version
from ltx_run.platforms import Obstacle

REBUILD = "rebuild it here: ltxbuild compile RECIPE"


def obstacles(needed: Fingerprint) -> tuple[Obstacle, ...]:
    """Another jaxlib, or instructions that this CPU doesn't have."""
    found = []
    if needed.runtime != runtime_version():
        found.append(f"it is compiled for {needed.runtime}, installed is {runtime_version()}")
    missing = [feature for feature in needed.features if feature not in host_features()]
    if missing:
        has = ", ".join(host_features())
        found.append(f"its code may use {', '.join(missing)}, this machine has {has}")
    return tuple(Obstacle(reason, REBUILD) for reason in found)


def devices(count: int) -> Devices:
    """The CPU as so many devices, which share the host's memory."""
    from ltx_run import pjrt

    return pjrt.Devices(pjrt.cpu(count), count)
