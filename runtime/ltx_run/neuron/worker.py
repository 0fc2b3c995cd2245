"""The process that holds the NeuronCores for another one, and does what that asks.

It ends when it is asked to, or when the other process is gone; then the cores are free.

Run as: python -m ltx_run.neuron.worker SOCKET CORES LOAD_SECONDS EXECUTE_SECONDS
"""

from __future__ import annotations

import mmap
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ltx_cache.errors import LtxError
from ltx_run.neuron.channel import (
    Channel,
    Close,
    Done,
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
from ltx_run.neuron.engine import Engine
from ltx_run.neuron.settings import Limits
from ltx_run.neuron.signature import Signature, Values

Array = NDArray[Any]


class _Server:
    """Does what is asked for, one request after the other."""

    def __init__(self, cores: int, limits: Limits) -> None:
        self._cores = cores
        self._limits = limits
        self._engine: Engine | None = None
        self._values: dict[str, Values] = {}

    @property
    def engine(self) -> Engine:
        """Started with the first request, so that what it lacks is an answer."""
        if self._engine is None:
            self._engine = Engine(self._cores, self._limits)
        return self._engine

    def do(self, request: Request) -> None:
        """Do one thing.

        Raises:
            LtxError: It can't be done.
        """
        match request:
            case Load():
                self._load(request)
            case Put(key=key, name=name, places=places):
                self.engine.put(key, name, places)
            case Free(key=key):
                self.engine.free(key)
            case WarmUp(name=name, weights=weights):
                self.engine.warm_up(name, weights)
            case Execute(name=name, changed=changed):
                values = self._values[name]
                self.engine.execute(name, {index: values.inputs[index] for index in changed}, values.results)
            case Unload(name=name):
                self._values.pop(name, None)
                self.engine.unload(name)
            case Close():
                if self._engine is not None:
                    self._engine.close()

    def _load(self, request: Load) -> None:
        signature = Signature.of(request.name, request.program)
        values = Values(signature, _mapped(request.values))
        self.engine.load(signature, _mapped(request.neff), request.needed)
        self._values[request.name] = values


def _mapped(path: str) -> Array:
    """The bytes of a file; writes go to it."""
    with Path(path).open("r+b") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0), np.uint8)


def main() -> None:
    """Serve until the other end closes, or asks to close."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it goes to the whole group; the other process decides
    end, cores, load, execute = sys.argv[1:]
    server = _Server(int(cores), Limits(float(load), float(execute)))
    channel = Channel(socket.socket(fileno=int(end)))
    request: Request | None = None
    while not isinstance(request, Close):
        received = channel.receive()
        if received is None:
            server.do(Close())
            return
        request = msgspec.json.decode(received, type=Request)
        channel.send(_attempt(server, request))


def _attempt(server: _Server, request: Request) -> Reply:
    try:
        server.do(request)
    except LtxError as error:
        return Failed(type(error).__name__, error.message, error.hint)
    except OSError as error:
        return Failed("ProgramFailed", f"{error.strerror or error}: {error.filename}", None)
    except Exception as error:  # a bug
        message = f"internal error of the process on the NeuronCores: {type(error).__name__}: {error}"
        return Failed("ProgramFailed", message, "please report it")
    return Done()


if __name__ == "__main__":
    main()
