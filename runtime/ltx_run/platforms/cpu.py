"""The CPU of this machine, as any number of devices."""

from __future__ import annotations

from ltx_run import devices as runtime
from ltx_run import fingerprint
from ltx_run.bundle import Fingerprint
from ltx_run.fingerprint import host_features, runtime_version
from ltx_run.peers import Peers
from ltx_run.platforms import Obstacle

REBUILD = "rebuild it here: ltxbuild compile RECIPE"


def obstacles(needed: Fingerprint, peers: Peers) -> tuple[Obstacle, ...]:
    """Another jaxlib, or instructions that this CPU doesn't have."""
    found = []
    if needed.runtime != runtime_version():
        found.append(f"it is compiled for {needed.runtime}, installed is {runtime_version()}")
    missing = [feature for feature in needed.features if feature not in host_features()]
    if missing:
        has = ", ".join(host_features())
        found.append(f"its code may use {', '.join(missing)}, this machine has {has}")
    return tuple(Obstacle(reason, REBUILD) for reason in found)


def native(needed: Fingerprint, peers: Peers) -> Fingerprint:
    """All that this CPU has."""
    return fingerprint.native(needed.devices)


def devices(count: int, peers: Peers) -> runtime.Devices:
    """The CPU as so many devices, which share the host's memory; each process has its part of them."""
    from ltx_run.clients import cpu
    from ltx_run.pjrt import Devices

    return Devices(cpu(max(count // peers.count, 1), peers))
