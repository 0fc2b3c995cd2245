"""AWS Neuron's devices, through its runtime library."""

from __future__ import annotations

import os

from ltx_cache.errors import LtxError
from ltx_run.bundle import Fingerprint
from ltx_run.devices import Devices
from ltx_run.peers import Peers
from ltx_run.platforms import Obstacle


def obstacles(needed: Fingerprint, peers: Peers) -> tuple[Obstacle, ...]:
    """A loader that isn't installed, or settings that don't fit; what the device lacks shows on it."""
    from ltx_run.neuron import loaders, settings

    if peers.count > 1:
        reason = f"programs for Neuron run in one process, not in {peers.count}"
        return (Obstacle(reason, "start one process, without the options for several hosts"),)
    try:
        loaders.check(os.environ)
        named = (each.removeprefix("lnc") for each in needed.features if each.startswith("lnc"))
        for size in filter(str.isdecimal, named):
            settings.core_size(int(size), os.environ)
    except LtxError as error:
        return (Obstacle(error.message, error.hint or ""),)
    return ()


def devices(count: int, peers: Peers) -> Devices:
    """The NeuronCores of this machine."""
    from ltx_run.neuron import devices, loaders

    return devices.Devices(loaders.start)
