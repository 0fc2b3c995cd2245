"""Programs on NeuronCores that this process holds until it ends: the runtime can't be started twice."""

from __future__ import annotations

import atexit
from functools import cache

from ltx_cache.errors import LtxError
from ltx_run.console import human_bytes, say
from ltx_run.neuron.engine import Engine
from ltx_run.neuron.settings import Limits

KEPT = 256 << 20
"""Bytes on a core that the runtime may keep for itself once a program was there."""


class Resident(Engine):
    """An engine whose runtime goes on when everything is unloaded."""

    def close(self) -> None:
        """Take everything from the cores; say so if that fails, or memory doesn't come back."""
        try:
            left = self.clear()
        except LtxError as error:
            say(f"note: {error.message}")
            return
        if left > KEPT:
            say(
                f"note: Neuron's runtime kept {human_bytes(left)} on a core after everything was unloaded; "
                "a process for each component gives all of it back (unset LTX_NEURON_LOADER)"
            )


@cache
def resident(cores: int, limits: Limits) -> Resident:
    """The engine of this process."""
    engine = Resident(cores, limits)
    atexit.register(Engine.close, engine)
    return engine
