"""The word that another process is gone, and how the main thread hears of it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time

from ltx_run.errors import PeerLost
from ltx_run.lifelines import Lifelines

WAITS = """
import socket, time
from ltx_run.lifelines import Lifelines
here, there = socket.socketpair()
lines = Lifelines({1: here}, print)
try:
    there.close()
    while True: time.sleep(0.01)
except KeyboardInterrupt:
    print(lines.end(0.0), lines.verdict().message)
lines.leave()
import os; os._exit(0)
"""


def test_a_waiting_main_thread_is_interrupted() -> None:
    """And finds, whenever the interrupt comes, that another process was the reason."""
    ended = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, timeout=15)
    assert ended.stdout.startswith("True process 1 ended without a word"), ended


def test_one_that_stops_by_itself_is_not() -> None:
    """A program that fails for want of the other process may do so first; the word comes while it is told."""
    told: list[PeerLost] = []
    here, there = socket.socketpair()
    lines = Lifelines({1: here}, told.append)
    threading.Timer(0.2, lambda: there.sendall(b"process 1 failed: no luck\n")).start()
    try:
        lost = lines.end(5.0)
        time.sleep(0.1)
    except KeyboardInterrupt:
        raise AssertionError("interrupted") from None
    finally:
        lines.leave()
        for timer in threading.enumerate():
            if isinstance(timer, threading.Timer):
                timer.cancel()
    assert lost
    assert lines.verdict().message == "process 1 failed: no luck"
    assert not told
