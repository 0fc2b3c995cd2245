"""Clients of jaxlib: what opens the devices of a platform.

This module and `ltx_run.pjrt` are the two that use jaxlib's private interface to run programs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltx_run.peers import ALONE, Peers

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # or XLA greets on standard error

import jaxlib._jax as _jax
import jaxlib._profiler as _profiler
import jaxlib.xla_client as xla

__all__ = ["_jax", "_profiler", "cpu", "meeting", "plugin", "xla"]


def cpu(count: int, peers: Peers = ALONE) -> Any:
    """This machine's CPU as so many devices, which know of those of the peers."""
    if peers.client is None:
        return xla.make_cpu_client(num_devices=count)
    return xla.make_cpu_client(
        num_devices=count,
        distributed_client=peers.client,
        node_id=peers.index,
        num_nodes=peers.count,
        collectives=_jax.make_gloo_tcp_collectives(peers.client),
    )


def plugin(platform: str, library: Path, options: Mapping[str, Any], peers: Peers = ALONE) -> Any:
    """The devices of a PJRT plugin, which stays loaded until the process ends.

    Raises:
        Exception: The plugin's refusal, such as of devices that another process uses.
    """
    if not xla.pjrt_plugin_loaded(platform):
        _profiler.register_plugin_profiler(xla.load_pjrt_plugin_dynamically(platform, str(library)))
    if not xla.pjrt_plugin_initialized(platform):
        xla.initialize_pjrt_plugin(platform)
    return xla.make_c_api_client(platform, options, peers.client)


def meeting(address: str, process: int, timeout: int, patience: int) -> Any:
    """Client of the distributed runtime, once all processes have one.

    Args:
        address: `HOST:PORT` of the coordinator.
        process: Number of this one.
        timeout: Seconds to wait for the others.
        patience: Seconds until jaxlib takes a silent process for lost, and ends all others.

    Raises:
        Exception: They didn't come.
    """
    client = _jax.get_distributed_runtime_client(
        address, process, init_timeout=timeout, heartbeat_timeout=patience, shutdown_on_destruction=False
    )
    client.connect()
    return client
