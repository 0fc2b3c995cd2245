"""Programs on NeuronCores that a process of its own holds: its end is what surely gives them back."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from ltx_cache.errors import LtxError
from ltx_run import errors
from ltx_run.neuron.channel import (
    Channel,
    Close,
    Execute,
    Failed,
    Free,
    Load,
    Put,
    Reply,
    Request,
    Unload,
    WarmUp,
)
from ltx_run.neuron.settings import Limits
from ltx_run.neuron.signature import Signature, Values
from ltx_run.weights import Place

Array = NDArray[Any]

TAIL = 15
"""Lines of the runtime's own output that an error shows."""
PATIENCE = 60.0
"""Seconds that the process may take to end."""
SLACK = 30.0
"""Seconds beyond a limit that the process has to report itself that it was reached."""
STILL_HELD = "if the device stays held (neuron-ls), reload the driver or reboot"


class Process:
    """The other process; every method waits until it has done what it is asked to."""

    def __init__(self, cores: int, environment: Mapping[str, str], limits: Limits) -> None:
        """Start it.

        Args:
            cores: Ranks of the programs.
            environment: Its variables.
            limits: How long it may take.
        """
        self._limits = limits
        self._values: dict[str, Values] = {}
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed with this object
        with theirs:
            arguments = [theirs.fileno(), cores, limits.load, limits.execute]
            command = [sys.executable, "-P", "-m", "ltx_run.neuron.worker", *map(str, arguments)]
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
            )
        self._channel = Channel(ours)

    def load(self, signature: Signature, neff: bytes, needed: int) -> None:
        """See `Engine.load`."""
        with _Memory(len(neff)) as code, _Memory(Values.size(signature)) as memory:
            code.array[:] = np.frombuffer(neff, np.uint8)
            request = Load(signature.name, signature.program, code.path, memory.path, needed)
            self._ask(request, self._limits.load)
            self._values[signature.name] = Values(signature, memory.array)

    def put(self, key: int, name: str, places: Sequence[Place]) -> None:
        """See `Engine.put`."""
        self._ask(Put(key, name, list(places)), self._limits.load)

    def free(self, key: int) -> None:
        """See `Engine.free`."""
        self._ask(Free(key), self._limits.load)

    def warm_up(self, name: str, weights: Mapping[int, int]) -> None:
        """See `Engine.warm_up`."""
        self._ask(WarmUp(name, dict(weights)), self._limits.execute)

    def execute(self, name: str, changed: Mapping[int, Array]) -> list[Array]:
        """See `Engine.execute`."""
        values = self._values[name]
        for index, value in changed.items():
            values.inputs[index][...] = value
        self._ask(Execute(name, list(changed)), self._limits.execute)
        return [result.copy() for result in values.results]

    def unload(self, name: str) -> None:
        """See `Engine.unload`."""
        self._values.pop(name, None)
        self._ask(Unload(name), self._limits.load)

    def close(self) -> None:
        """End it in order; kill it if it doesn't end."""
        try:
            if self._process.poll() is None:
                self._ask(Close(), PATIENCE)
                self._process.wait(PATIENCE)
        except (LtxError, subprocess.TimeoutExpired):
            pass
        finally:
            self._end()

    def _ask(self, request: Request, limit: float) -> None:
        """Send a request and wait for the answer; without one the process is killed."""
        self._channel.timeout(limit + SLACK)
        try:
            self._channel.send(request)
            received = self._channel.receive()
        except TimeoutError:
            self._end()
            message = f"can't {_words(request)}: no answer in {limit + SLACK:g} s; its process was ended"
            raise self._failure(message, STILL_HELD) from None
        except ConnectionError:  # the other end closed while we wrote
            received = None
        except BaseException:
            self._end()
            raise
        if received is None:
            raise self._failure(f"the process that holds the NeuronCores {self._gone()}", "run it again")
        reply = msgspec.json.decode(received, type=Reply)
        if isinstance(reply, Failed):
            raise self._failure(reply.message, reply.hint, getattr(errors, reply.kind, errors.ProgramFailed))

    def _failure(
        self, message: str, advice: str | None, kind: type[LtxError] = errors.ProgramFailed
    ) -> LtxError:
        lines: list[str] = []
        if kind is not errors.BundleInvalid:  # what the runtime said is about something else
            self._log.seek(0)
            lines = self._log.read().decode(errors="replace").splitlines()[-TAIL:]
        return kind("\n    ".join([message, *lines]), hint=advice)

    def _gone(self) -> str:
        """How the process ended, once its end of the socket is closed."""
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._end()
            return "stopped to answer and was ended"
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def _end(self) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()


def _words(request: Request) -> str:
    """What was asked for, as the object of "can't"."""
    verb = {Put: "copy weight", WarmUp: "warm up program"}.get(type(request), type(request).__name__.lower())
    return f"{verb} {getattr(request, 'name', '')}".strip()


class _Memory:
    """Memory that another process can map as well; the file is closed at the end, the array stays.

    Attributes:
        path: Of the file while it is open; it has no name in any folder that a crash could leave behind.
        array: Its bytes.
    """

    def __init__(self, size: int) -> None:
        self._file = os.memfd_create("ltx-run")
        self.path = f"/proc/{os.getpid()}/fd/{self._file}"
        os.ftruncate(self._file, max(size, 1))
        self.array = np.frombuffer(mmap.mmap(self._file, 0), np.uint8)[:size]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
