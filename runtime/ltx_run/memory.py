"""Peak memory of this process, from one mark to the next."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def reset_peak() -> None:
    """Start a new measurement; where the kernel has none, the peak counts from the start of the process."""
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:
        return


def peak() -> int:
    """Bytes of memory held at most since `reset_peak`, mapped weights included."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
