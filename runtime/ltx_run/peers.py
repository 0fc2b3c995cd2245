"""The processes that make a video together: usually this one alone, else one per host of a mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Peers:
    """This process among those that run together.

    Attributes:
        index: Its number; 0 writes the files.
        count: Number of processes.
        client: jaxlib's client of the distributed runtime; None if the process is alone.
    """

    index: int
    count: int
    client: Any | None


ALONE = Peers(0, 1, None)
"""No other process."""
