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

PLATFORMS: Mapping[str, str] = MappingProxyType({"cpu": "ltx_run.platforms.cpu"})
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

    def obstacles(self, needed: Fingerprint) -> tuple[Obstacle, ...]:
        """Why this machine can't run code with that fingerprint; none if it can."""

    def devices(self, count: int) -> Devices:
        """The first so many devices; `obstacles` found none for programs that span them."""


def platform(name: str) -> Platform:
    """The platform of that name; `PLATFORMS` has it."""
    return cast(Platform, import_module(PLATFORMS[name]))


def obstacles(needed: Fingerprint) -> tuple[Obstacle, ...]:
    """Why this machine can't run code with that fingerprint; none if it can."""
    if needed.platform in PLATFORMS:
        return platform(needed.platform).obstacles(needed)
    known = ", ".join(PLATFORMS)
    reason = f"it is compiled for {needed.platform}, this version of ltx-run executes {known}"
    return (Obstacle(reason, "use a newer version, or rebuild it for this machine: ltxbuild compile RECIPE"),)
