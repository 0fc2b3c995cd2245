"""No network: whatever library tries."""

from __future__ import annotations

import os
import sys

_REFUSED = {"connect", "getaddrinfo", "gethostbyname", "sendto", "sendmsg", "bind"}


def refuse_connections() -> None:
    """Make every later attempt of this process to reach the network an error; there is no way back."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # the Hub's library then takes its files without asking for newer ones

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        library, _, what = event.partition(".")
        if library == "socket" and what in _REFUSED:
            raise PermissionError(f"--offline refuses {event}{arguments[1:]}")

    sys.addaudithook(audit)
