"""Platforms: what this machine can execute, and the devices that do it.

A platform is one module. To add one, write it and name it in `PLATFORMS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import NamedTuple, Protocol, cast

from ltx_run.bundle import Fingerprint
from ltx_run.devices import Devices
from ltx_run.peers import ALONE, Peers

PLATFORMS: Mapping[str, str] = MappingProxyType(
    {name: f"ltx_run.platforms.{name}" for name in ("cpu", "cuda", "neuron", "tpu")}
)
"""Module of each platform."""


class Obstacle(NamedTuple):
    """Why this machine can't run a program.

    Attributes:
        reason: A sentence that names both values, needed and found.
        advice: How to get what is needed: a command, if there is one.
    """

    reason: str
    advice: str


class Platform(Protocol):
    """The functions of a platform's module, which imports no runtime library before one is called."""

    def obstacles(self, needed: Fingerprint, peers: Peers) -> tuple[Obstacle, ...]:
        """Why this machine can't run code with that fingerprint, together with its peers; none if it can."""

    def native(self, needed: Fingerprint, peers: Peers) -> Fingerprint | tuple[Obstacle, ...]:
        """What a program is compiled for here whose executable has that fingerprint; or why it can't be.

        Asked of platforms alone whose programs have a portable form.
        """

    def devices(self, count: int, peers: Peers) -> Devices:
        """The first so many devices; `obstacles` found none for programs that span them."""


def platform(name: str) -> Platform:
    """The platform of that name; `PLATFORMS` has it."""
    return cast(Platform, import_module(PLATFORMS[name]))


def obstacles(needed: Fingerprint, peers: Peers = ALONE) -> tuple[Obstacle, ...]:
    """Why this machine can't run code with that fingerprint, together with its peers; none if it can."""
    if needed.platform in PLATFORMS:
        return platform(needed.platform).obstacles(needed, peers)
    known = ", ".join(PLATFORMS)
    reason = f"it is compiled for {needed.platform}, this version of ltx-run executes {known}"
    return (Obstacle(reason, "use a newer version, or rebuild it for this machine: ltxbuild compile RECIPE"),)


def uneven(needed: Fingerprint, largest: int, peers: Peers) -> tuple[Obstacle, ...]:
    """Why processes can't share a program's devices; none if they can, or if there is one.

    Args:
        needed: Of the program.
        largest: Devices that the largest program of its platform spans, which all processes share evenly;
            smaller ones run in each of them.
        peers: The processes.
    """
    each, rest = divmod(largest, peers.count)
    if 1 in (peers.count, needed.devices) or (not rest and needed.devices in (largest, *range(each + 1))):
        return ()
    reason = f"it spans {needed.devices} of {largest} devices, which {peers.count} processes can't share"
    return (Obstacle(reason, "start one process per host of the mesh"),)
