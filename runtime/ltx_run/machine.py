"""The devices of a run: of every platform that its programs are for."""

from __future__ import annotations

from collections.abc import Iterable

from ltx_run.bundle import Fingerprint
from ltx_run.devices import Devices
from ltx_run.platforms import platform


class Machine:
    """Devices by platform, opened when first asked for."""

    def __init__(self, needed: Iterable[Fingerprint]) -> None:
        """Note what is needed.

        Args:
            needed: Fingerprints of all programs that will run.
        """
        self._counts: dict[str, int] = {}
        for each in needed:
            self._counts[each.platform] = max(each.devices, self._counts.get(each.platform, 0))
        self._opened: dict[str, Devices] = {}

    def devices(self, name: str) -> Devices:
        """The devices of a platform, as many as the largest program spans."""
        if name not in self._opened:
            self._opened[name] = platform(name).devices(self._counts[name])
        return self._opened[name]
