"""Running as one of several processes, whose devices make up one mesh: meeting, staying together, parting.

Once they have met, they hold `lifelines`, and process 0 starts jaxlib's coordination service for all, through
which XLA's collectives find each other. All must do the same: `agree` compares what they were started with.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ltx_cache.errors import LtxError
from ltx_run import clients, coordinator
from ltx_run.cluster import Place
from ltx_run.console import INTERRUPTED, complain, say
from ltx_run.errors import BadCluster, PeerLost, ProgramFailed
from ltx_run.lifelines import Lifelines
from ltx_run.meeting import MEETING, free_port, hear_port, meet, tell_port
from ltx_run.peers import Peers

_DAY = 24 * 60 * 60 * 1000
_GLANCE = 0.2
"""Seconds between two looks at a wait, which an interrupt can't end by itself."""
_SOON = 2.0
"""Seconds within which a lost process is known, when a program fails for want of it."""


@contextmanager
def joined(place: Place, *, quiet: bool) -> Iterator[Peers]:
    """This process among its peers; the end of one, inside, is the end of all.

    Args:
        place: Which one it is.
        quiet: Whether to print errors alone.

    Raises:
        PeerLost: Another process failed, was killed, or never came.
        BadCluster: The port can't be opened, or the processes were started in contradiction.
    """
    _spare_standard_output()
    if not quiet:
        say(f"process {place.process} of {place.processes}: meeting the others at {place.coordinator}")
    ends = meet(place)
    service, port = _serve(ends, place.processes) if place.process == 0 else (None, hear_port(ends[0]))
    lines = Lifelines(ends, lambda lost: complain(lost.message, lost.hint))
    host = place.coordinator.rpartition(":")[0]
    try:
        client = clients.meeting(f"{host}:{port}", place.process, int(MEETING), coordinator.PATIENCE)
        peers = Peers(place.process, place.processes, client)
        yield peers
        gather(peers, "end")
    except BaseException as error:
        try:
            lost = lines.end(_SOON if isinstance(error, ProgramFailed | PeerLost) else 0.0)
        except KeyboardInterrupt:
            lost = lines.end(0.0)
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


def gather(peers: Peers, where: str) -> None:
    """Wait until all processes are there, however long one of them downloads; `lifelines` interrupts it.

    What comes next may give up on the others within minutes, as jaxlib does when it opens devices.

    Args:
        peers: The processes; nobody is waited for if there is one.
        where: Name of the place, which each process comes to once.

    Raises:
        PeerLost: They don't come.
    """
    if peers.client is None:
        return
    client, errors = peers.client, list[Exception]()

    def wait() -> None:
        try:
            client.wait_at_barrier(f"ltx-run/{where}", _DAY)
        except Exception as error:
            errors.append(error)

    # jaxlib's own wait would not let the main thread be interrupted.
    waiting = threading.Thread(target=wait, name="gather", daemon=True)
    waiting.start()
    while waiting.is_alive():
        waiting.join(_GLANCE)
    if errors:
        raise PeerLost(
            f"process {peers.index} waited in vain for the others ({where}): {errors[0]}",
            hint="look at what they said themselves; then start all processes again",
        ) from errors[0]


def agree(peers: Peers, what: str) -> None:
    """Compare what this process was started with to what process 0 was.

    Args:
        peers: The processes; nothing is compared if there is one.
        what: Text that must be the same in all.

    Raises:
        BadCluster: It is not.
        PeerLost: Another process doesn't come to this point.
    """
    if peers.client is None:
        return
    digest = hashlib.sha256(what.encode()).hexdigest()
    if peers.index == 0:
        peers.client.key_value_set("ltx-run/what", digest)
    gather(peers, "what")
    if peers.index and peers.client.key_value_try_get("ltx-run/what") != digest:
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


def _serve(ends: Mapping[int, socket.socket], processes: int) -> tuple[subprocess.Popen[str], int]:
    """Start the coordinator and tell the others its port.

    Raises:
        BadCluster: It doesn't start.
    """
    port = free_port()
    service = subprocess.Popen(
        [sys.executable, "-P", "-m", "ltx_run.coordinator", str(port), str(processes)],
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
        raise BadCluster(f"the coordinator doesn't start: {''.join(last)}")
    tell_port(ends, port)
    return service, port
