"""The devices of a run: of every platform that its programs are for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ltx_run.bundle import Fingerprint
from ltx_run.devices import Devices
from ltx_run.peers import ALONE, Peers
from ltx_run.platforms import platform


class Machine:
    """Devices by platform, opened when first asked for.

    Attributes:
        peers: The processes that run the programs together.
    """

    def __init__(self, needed: Iterable[Fingerprint], peers: Peers = ALONE) -> None:
        """Note what is needed.

        Args:
            needed: Fingerprints of all programs that will run.
            peers: The processes that run them together.
        """
        self.peers = peers
        self._counts = largest(needed)
        self._opened: dict[str, Devices] = {}

    def devices(self, name: str) -> Devices:
        """The devices of a platform, as many as the largest program spans."""
        if name not in self._opened:
            self._opened[name] = platform(name).devices(self._counts[name], self.peers)
        return self._opened[name]

    def ranks(self, name: str, count: int) -> Sequence[int]:
        """Ranks of a program that spans so many devices of a platform, as far as this process has them."""
        return range(count) if self.peers.count == 1 else self.devices(name).ranks(count)


def largest(needed: Iterable[Fingerprint]) -> dict[str, int]:
    """Per platform, how many devices the largest program spans."""
    counts: dict[str, int] = {}
    for each in needed:
        counts[each.platform] = max(each.devices, counts.get(each.platform, 0))
    return counts
