"""Messages between two processes: JSON in frames over a socket."""

from __future__ import annotations

import socket

import msgspec

from ltx_run.bundle import Program
from ltx_run.weights import Place

_LENGTH = 8


class Load(msgspec.Struct, tag=True):
    """Put a program on the cores; `neff` and `values` are paths of memory, of the latter see `signature`."""

    name: str
    program: Program
    neff: str
    values: str
    needed: int


class Put(msgspec.Struct, tag=True):
    """Copy a weight to the cores."""

    key: int
    name: str
    places: list[Place]


class Free(msgspec.Struct, tag=True):
    """Give a weight's memory back."""

    key: int


class WarmUp(msgspec.Struct, tag=True):
    """Bind a program to its weights, keys by parameter number, and execute it with zeros."""

    name: str
    weights: dict[int, int]


class Execute(msgspec.Struct, tag=True):
    """Execute a program, after the inputs that changed lie in its memory; results will lie there."""

    name: str
    changed: list[int]


class Unload(msgspec.Struct, tag=True):
    """Take a program from the cores."""

    name: str


class Close(msgspec.Struct, tag=True):
    """Take everything from the cores, end the runtime, and end."""


class Done(msgspec.Struct, tag=True):
    """What was asked for is done."""


class Failed(msgspec.Struct, tag=True):
    """It is not: class of the error, message and hint."""

    kind: str
    message: str
    hint: str | None


Request = Load | Put | Free | WarmUp | Execute | Unload | Close
Reply = Done | Failed


class Channel:
    """One end of the socket."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def timeout(self, seconds: float | None) -> None:
        """How long `receive` waits, None without end."""
        self._socket.settimeout(seconds)

    def send(self, message: Request | Reply) -> None:
        """Send a message.

        Raises:
            OSError: The other end is gone.
        """
        data = msgspec.json.encode(message)
        self._socket.sendall(len(data).to_bytes(_LENGTH, "little") + data)

    def receive(self) -> bytes | None:
        """The next message; None when the other end is gone.

        Raises:
            TimeoutError: There was none in time.
        """
        try:
            return self._read(int.from_bytes(self._read(_LENGTH), "little"))
        except (ConnectionError, EOFError):
            return None

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self._socket.recv(min(count - len(data), 1 << 20))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
