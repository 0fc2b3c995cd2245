"""Running as one of several processes, whose devices make up one mesh: meeting, staying together, parting.

The processes meet at jaxlib's coordination service, through which XLA's collectives find each other, and hold
`lifelines` from then on. All must do the same: `agree` compares what they were started with.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ltx_cache.errors import LtxError
from ltx_run import coordinator
from ltx_run.cluster import Place
from ltx_run.console import INTERRUPTED, complain, say
from ltx_run.errors import BadCluster, PeerLost, ProgramFailed
from ltx_run.lifelines import Lifelines
from ltx_run.peers import ALONE, Peers

MEETING = 300
"""Seconds that processes wait for each other at the start."""
_DAY = 24 * 60 * 60 * 1000
_SOON = 2.0
"""Seconds within which a lost process is known, when a program fails for want of it."""


@contextmanager
def joined(place: Place | None, *, quiet: bool) -> Iterator[Peers]:
    """This process among its peers; the end of one, inside, is the end of all.

    Args:
        place: Which one it is; None if it is alone.
        quiet: Whether to print errors alone.

    Raises:
        PeerLost: Another process failed, was killed, or never came.
        BadCluster: The coordinator's port can't be opened.
    """
    if place is None:
        yield ALONE
        return
    _spare_standard_output()
    service = _serve(place) if place.process == 0 else None
    if not quiet:
        say(f"process {place.process} of {place.processes}: meeting the others at {place.coordinator}")
    client = _meet(place)
    lines = Lifelines(_connect(place, client), lambda lost: complain(lost.message, lost.hint))
    try:
        yield Peers(place.process, place.processes, client)
        client.wait_at_barrier("ltx-run/end", _DAY)
    except BaseException as error:
        if isinstance(error, ProgramFailed):
            lines.lost.wait(_SOON)
        lost = lines.lost.is_set()
        atexit.register(_leave_now, 1 if lost else _exit_code(error))
        if lost:
            raise lines.verdict() from None
        word = error.message if isinstance(error, LtxError) else type(error).__name__
        lines.leave(f"process {place.process} failed: {word}")
        raise
    lines.leave()
    client.shutdown()
    if service is not None:
        service.communicate(f"{coordinator.DONE}\n")


def agree(peers: Peers, what: str) -> None:
    """Compare what this process was started with to what process 0 was.

    Args:
        peers: The processes; nothing is compared if there is one.
        what: Text that must be the same in all.

    Raises:
        BadCluster: It is not.
    """
    if peers.client is None:
        return
    digest = hashlib.sha256(what.encode()).hexdigest()
    if peers.index == 0:
        peers.client.key_value_set("ltx-run/what", digest)
    elif peers.client.blocking_key_value_get("ltx-run/what", MEETING * 1000) != digest:
        raise BadCluster(
            f"process {peers.index} was started with another bundle, prompt, seed or option than process 0",
            hint="start all processes with the same command line, but for --process",
        )


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return error.exit_code if isinstance(error, LtxError) else 1


def _spare_standard_output() -> None:
    """Send what libraries print to standard error; collectives greet on standard output, which is data's."""
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)


def _leave_now(code: int) -> None:
    """End without waiting for programs that wait for other processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve(place: Place) -> subprocess.Popen[str]:
    """Start the coordinator."""
    port = place.coordinator.rpartition(":")[2]
    service = subprocess.Popen(
        [sys.executable, "-m", "ltx_run.coordinator", port, str(place.processes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert service.stdout is not None
    if service.stdout.readline().strip() != coordinator.READY:
        _, errors = service.communicate()
        last = errors.strip().splitlines()[-1:]
        raise BadCluster(f"port {port} can't be opened for the coordinator: {''.join(last)}")
    return service


def _meet(place: Place) -> Any:
    """Wait at the coordinator until all processes are there."""
    from ltx_run.clients import meeting

    try:
        return meeting(place.coordinator, place.process, MEETING, coordinator.PATIENCE)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise PeerLost(
            f"{place.processes} processes didn't meet at {place.coordinator} in {MEETING} s: {reason}",
            hint="start all of them; the host of process 0 must be reachable by that name from the others",
        ) from None


def _connect(place: Place, client: Any) -> dict[int, socket.socket]:
    """Connections to the other processes: process 0 has one to each of them, they have one to it.

    Raises:
        PeerLost: One doesn't connect.
    """
    key = "ltx-run/lifelines"
    try:
        if place.process:
            port = int(client.blocking_key_value_get(key, MEETING * 1000))
            host = place.coordinator.rpartition(":")[0].strip("[]")
            end = socket.create_connection((host, port), MEETING)
            end.sendall(place.process.to_bytes(4, "big"))
            ends = {0: end}
        else:
            with socket.create_server(("", 0)) as server:
                server.settimeout(MEETING)
                client.key_value_set(key, str(server.getsockname()[1]))
                ends = dict(_accepted(server) for _ in range(place.processes - 1))
    except Exception as error:
        raise PeerLost(f"the processes met, but can't stay in touch: {error}") from error
    for end in ends.values():
        end.settimeout(None)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return ends


def _accepted(server: socket.socket) -> tuple[int, socket.socket]:
    """The next process that connects."""
    end, _ = server.accept()
    return int.from_bytes(end.recv(4, socket.MSG_WAITALL), "big"), end
