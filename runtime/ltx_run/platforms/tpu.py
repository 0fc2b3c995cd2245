"""Google's TPUs, through libtpu."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from ltx_run.bundle import Fingerprint
from ltx_run.devices import Devices
from ltx_run.peers import Peers
from ltx_run.platforms import Obstacle, plugin

_PCI = Path("/sys/bus/pci/devices")
_GOOGLE = "0x1ae0"
_CHIPS = frozenset({"0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076"})
"""PCI ids of TPU chips from v2 to tpu7x, as jax looks for them; Google's network cards have others."""


def _library() -> Path | None:
    given = os.environ.get("TPU_LIBRARY_PATH")
    if given and Path(given).is_file():
        return Path(given)
    found = find_spec("libtpu")
    return Path(found.origin).with_name("libtpu.so") if found and found.origin else None


def _attached() -> bool:
    return any(
        vendor.read_text().strip() == _GOOGLE and vendor.with_name("device").read_text().strip() in _CHIPS
        for vendor in _PCI.glob("*/vendor")
    )


PLUGIN = plugin.Plugin(
    platform="tpu",
    devices="TPU",
    extra="tpu",
    whole=True,
    library=_library,
    attached=_attached,
    options=lambda peers: {},
)


def obstacles(needed: Fingerprint, peers: Peers) -> tuple[Obstacle, ...]:
    """Packages, chips, or a topology that this machine doesn't have."""
    return plugin.obstacles(PLUGIN, needed, peers)


def native(needed: Fingerprint, peers: Peers) -> Fingerprint | tuple[Obstacle, ...]:
    """The chips that are here."""
    return plugin.native(PLUGIN, needed, peers)


def devices(count: int, peers: Peers) -> Devices:
    """All chips of the slice."""
    return plugin.devices(PLUGIN, peers)
