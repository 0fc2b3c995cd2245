"""How processes that run together find each other: process 0 waits at a known port, the others come to it.

jaxlib's own service would do that too, but ends a process with a stack trace if another never comes.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping

from ltx_run.cluster import Place
from ltx_run.errors import BadCluster, PeerLost

MEETING = 300.0
"""Seconds that processes wait for each other at the start."""
HELLO_TIME = 10.0
"""Seconds that who has come may take to say who it is."""
_HELLO = struct.Struct("!8sII")
_WORD = b"ltx-run\n"
"""First in a hello, so that other programs that look in aren't taken for processes."""
_PORT = struct.Struct("!I")
_NAMES = "process 0's host must be reachable by that name from the others; start all of them"


def meet(place: Place) -> dict[int, socket.socket]:
    """Connections to the others by number: process 0 has one to each, they have one to process 0.

    Raises:
        PeerLost: Some never came, or process 0 can't be reached.
        BadCluster: The port can't be opened, or the processes contradict each other.
    """
    ends = {0: _come(place)} if place.process else _receive(place)
    for end in ends.values():
        end.settimeout(None)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return ends


def tell_port(ends: Mapping[int, socket.socket], port: int) -> None:
    """Tell the others a port, once; done by process 0."""
    for end in ends.values():
        end.sendall(_PORT.pack(port))


def hear_port(end: socket.socket) -> int:
    """The port that process 0 tells.

    Raises:
        PeerLost: It is gone.
    """
    data = end.recv(_PORT.size, socket.MSG_WAITALL)
    if len(data) < _PORT.size:
        raise PeerLost("process 0 ended before all processes were there", hint="look at what it said itself")
    port: int = _PORT.unpack(data)[0]
    return port


def free_port() -> int:
    """A port that nobody uses now."""
    with _server(0) as server:
        port: int = server.getsockname()[1]
        return port


def _server(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _receive(place: Place) -> dict[int, socket.socket]:
    """Wait for the others."""
    port = place.coordinator.rpartition(":")[2]
    try:
        server = _server(int(port))
    except OSError as error:
        raise BadCluster(
            f"port {port} can't be opened: {error.strerror or error}", hint="choose another"
        ) from None
    missing = set(range(1, place.processes))
    ends: dict[int, socket.socket] = {}
    until = time.monotonic() + MEETING
    with server:
        while missing:
            server.settimeout(max(until - time.monotonic(), 0.01))
            try:
                end, _ = server.accept()
            except TimeoutError:
                listed = ", ".join(map(str, sorted(missing)))
                raise PeerLost(f"processes {listed} didn't come in {MEETING:.0f} s", hint=_NAMES) from None
            except OSError:
                continue  # it left before it was let in
            said = _heard(end)
            if said is None:
                end.close()
                continue
            number, processes = said
            if number not in missing or processes != place.processes:
                came = f"process {number} of {processes} came"
                raise BadCluster(f"{came} to process 0 of {place.processes}, or came twice")
            missing.remove(number)
            ends[number] = end
    return ends


def _hello(number: int, processes: int) -> bytes:
    """What a process says first."""
    return _HELLO.pack(_WORD, number, processes)


def _heard(end: socket.socket) -> tuple[int, int] | None:
    """Which process of how many is at the other end; None if it is some other program."""
    end.settimeout(HELLO_TIME)
    try:
        word, number, processes = _HELLO.unpack(end.recv(_HELLO.size, socket.MSG_WAITALL))
    except (OSError, struct.error):
        return None
    return (number, processes) if word == _WORD else None


def _come(place: Place) -> socket.socket:
    """Connect to process 0, which may not have started yet."""
    host, _, port = place.coordinator.rpartition(":")
    until = time.monotonic() + MEETING
    while True:
        try:
            end = socket.create_connection((host.strip("[]"), int(port)), 10)
            end.sendall(_hello(place.process, place.processes))
            return end
        except OSError as error:
            if time.monotonic() > until:
                reason = error.strerror or str(error)
                message = f"process 0 can't be reached at {place.coordinator} in {MEETING:.0f} s: {reason}"
                raise PeerLost(message, hint=_NAMES) from None
            time.sleep(0.2)
