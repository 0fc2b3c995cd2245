"""Memory of the devices that programs run on. To add one, touch this file only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

GB = 10**9

DEVICE_MEMORY: Mapping[str, int] = MappingProxyType(
    {
        "v5e": 16 * GB,
        "v5p": 95 * GB,
        "v6e": 32 * GB,
        "tpu7x": 96 * GB,
        "h100": 80 * GB,
        "h200": 141 * GB,
        "trn2": 24 * GB,
    }
)
"""Bytes of one device by the name before the colon of a topology, from the vendors' data sheets.

A TPU v7 chip has 192 GB and two cores, each a device of its own. A Trainium2 chip has 96 GB and, at two
physical cores to a logical one, four devices.
"""


def device_memory(topology: str | None) -> int | None:
    """Bytes of one device of a topology; None where they are not known, as those of a host are.

    >>> device_memory("v6e:2x4"), device_memory(None)
    (32000000000, None)
    """
    return DEVICE_MEMORY.get(topology.partition(":")[0]) if topology else None
