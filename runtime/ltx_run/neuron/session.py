"""What is on the NeuronCores at a time, and who holds it there."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from numpy.typing import NDArray

from ltx_cache.errors import LtxError
from ltx_run.errors import ProgramFailed
from ltx_run.neuron.signature import Signature
from ltx_run.weights import Place

Array = NDArray[Any]


class Runner(Protocol):
    """What holds the cores; see `engine.Engine`."""

    def load(self, signature: Signature, neff: bytes, needed: int) -> None:
        """Put a program on the cores."""

    def put(self, key: int, name: str, places: Sequence[Place]) -> None:
        """Copy a weight to the cores."""

    def free(self, key: int) -> None:
        """Give a weight's memory back."""

    def warm_up(self, name: str, weights: Mapping[int, int]) -> None:
        """Bind a program to its weights, and execute it once."""

    def execute(self, name: str, changed: Mapping[int, Array]) -> Sequence[Array]:
        """Execute a program."""

    def unload(self, name: str) -> None:
        """Take a program from the cores."""

    def close(self) -> None:
        """Let go of the cores."""


class Session:
    """A runner, and what is in it.

    Attributes:
        runner: Holds the cores.
        weight_bytes: Bytes on each core of the weights that are there.
    """

    def __init__(self, runner: Runner, ended: Callable[[], None]) -> None:
        """Begin; `ended` is called once nothing is left, or when it failed."""
        self.runner = runner
        self.weight_bytes = 0
        self._ended = ended
        self._failure: LtxError | None = None
        self._busy = False
        self._leaving: list[Callable[[Runner], None]] = []
        self._uses = 0
        self._keys = 0

    def run(self, what: Callable[[Runner], Any]) -> Any:
        """Do something with the runner; a session in which something failed is over.

        Raises:
            LtxError: It fails, or something failed before.
        """
        if self._failure is not None:
            raise self._failure
        self._busy = True
        try:
            return what(self.runner)
        except LtxError as error:
            self._failure = error
            self.end()
            raise
        finally:
            self._busy = False

    def program(self, owner: object, signature: Signature, code: bytes) -> None:
        """Put a program on the cores, for as long as its owner lives."""
        needed = max(0, signature.part_bytes - self.weight_bytes)
        self._uses += 1
        self._held_by(owner, lambda runner: runner.unload(signature.name))
        self.run(lambda runner: runner.load(signature, code, needed))

    def weight(self, owner: object, name: str, places: Sequence[Place]) -> int:
        """Put a weight on the cores, for as long as its owner lives; returns its key."""
        self._keys += 1
        key, size = self._keys, places[0].size
        self._uses += 1
        self.weight_bytes += size

        def free(runner: Runner) -> None:
            self.weight_bytes -= size
            runner.free(key)

        self._held_by(owner, free)
        self.run(lambda runner: runner.put(key, name, places))
        return key

    def _held_by(self, owner: object, free: Callable[[Runner], None]) -> None:
        """Free something when its owner is gone. The end of the process lets go of everything by itself."""
        weakref.finalize(owner, self._leave, free).atexit = False

    def _leave(self, free: Callable[[Runner], None]) -> None:
        """An owner is gone; the garbage collector may say so amid anything, also of this session."""
        self._uses -= 1
        self._leaving.append(free)
        if self._busy or self._failure is not None:
            return
        if not self._uses:
            self.end()
        with suppress(LtxError):  # the next one to use the session is told
            while self._leaving:
                self.run(self._leaving.pop())

    def end(self) -> None:
        """Let go of the cores, with all that is there."""
        self._failure = self._failure or ProgramFailed("the session on the device has ended")
        self._ended()
        with suppress(LtxError):  # it failed before, or the work is done
            self.runner.close()
