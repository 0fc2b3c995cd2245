"""Runs a command that must not outlive who asked for it.

Run as: python -m ltxbuild.neuron.guard COMMAND...

Whoever asks holds the other end of standard input. When that is closed, by will or because its process is
gone, or when this process is told to stop, the command ends with everything that it has started. It then
ends as the command did: with its exit code, or by the signal that killed it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from types import FrameType


def main() -> None:
    """Run the command of the command line."""
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)

    def stop(number: int, frame: FrameType | None) -> None:
        _end(process)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    threading.Thread(target=_watch, args=(process,), daemon=True).start()
    code = process.wait()
    _end(process)
    if code < 0:
        with contextlib.suppress(OSError):  # of SIGKILL, which has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _watch(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of standard input."""
    while os.read(0, 1):
        pass
    _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the command's session; what is left of it when the command itself has ended, too."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the latter on macOS, if all have ended
        os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
