"""Connections by which processes that run together hear at once when one of them is gone.

Process 0 holds one to each of the others. A process that fails says so first; the system closes the
connection of one that is killed. Either way the others get the word and stop, since they would wait for ever
for its part of a computation.
"""

from __future__ import annotations

import _thread
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from ltx_run.errors import PeerLost

LINE = 64 << 10
"""Most bytes of a word."""
GRACE = 10.0
"""Seconds that the main thread has to stop in order."""
_DONE = "done"


class Lifelines:
    """This process's connections to others: to all of them in process 0, else to process 0.

    Attributes:
        lost: Set once another process is gone that should not be.
    """

    def __init__(self, ends: Mapping[int, socket.socket], complain: Callable[[PeerLost], None]) -> None:
        """Listen to the others from now on.

        Args:
            ends: Connections by number of the process at the other end.
            complain: Tells the user, if the main thread doesn't stop in order.
        """
        self.lost = threading.Event()
        self._ends = ends
        self._complain = complain
        self._word = ""
        self._leaving = False
        self._ending = False
        self._lock = threading.Lock()
        for number, end in ends.items():
            threading.Thread(target=self._listen, args=(number, end), name="lifeline", daemon=True).start()

    def _listen(self, number: int, end: socket.socket) -> None:
        with suppress(OSError), end.makefile("r", encoding="utf-8", errors="replace") as lines:
            word = lines.readline(LINE).strip()
        if word == _DONE:
            return
        self._stop(word or f"process {number} ended without a word: it was killed, or its machine is gone")

    def _stop(self, word: str) -> None:
        with self._lock:
            if self._leaving or self.lost.is_set():
                return
            self._word = word
            if not self._ending:
                _thread.interrupt_main()
            self.lost.set()
        self._tell(word)
        threading.Timer(GRACE, self._give_up).start()

    def _give_up(self) -> None:
        self._complain(self.verdict())
        os._exit(PeerLost.exit_code)

    def end(self, seconds: float) -> bool:
        """Stop of the main thread's own accord: from now on it is told by `lost` alone, not interrupted.

        Args:
            seconds: How long to wait for the word that another process is gone.

        Returns:
            Whether one is.

        Raises:
            KeyboardInterrupt: The word came just before, and with it the interrupt.
        """
        with self._lock:
            self._ending = True
        return self.lost.wait(seconds)

    def verdict(self) -> PeerLost:
        """What to tell the user once `lost` is set."""
        return PeerLost(self._word, hint="look at what it said itself; then start all processes again")

    def leave(self, word: str = _DONE) -> None:
        """Go: from now on it doesn't matter whether the others are there.

        Args:
            word: What they stop with; without one they go on.
        """
        with self._lock:
            self._leaving = True
        self._tell(word)

    def _tell(self, word: str) -> None:
        line = " ".join(word.split())[: LINE // 4]
        for end in self._ends.values():
            with suppress(OSError):
                end.sendall(f"{line}\n".encode())
