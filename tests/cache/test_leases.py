"""Leases: nothing is collected while somebody works."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ltx_cache.errors import StoreNotWritable
from ltx_cache.layout import Layout
from ltx_cache.leases import Leases
from ltx_cache.store import Store

HOLDER = """
import sys
from pathlib import Path
from ltx_cache.store import Store
with Store(Path(sys.argv[1])).in_use(create=True):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    """The leases of a new store."""
    return Leases(Layout(tmp_path / "store"))


def holder(root: Path) -> subprocess.Popen[str]:
    """Another process that uses the store."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(root)], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def free(leases: Leases) -> bool:
    with leases.exclusive() as alone:
        return alone


def test_any_number_may_use_a_store(leases: Leases) -> None:
    """Users don't exclude each other, and each of them excludes a collection."""
    with leases.shared(), leases.shared():
        assert not free(leases)
    assert free(leases)


def test_a_killed_user_holds_no_lease(leases: Leases, tmp_path: Path) -> None:
    """The lease of another process counts until it ends, however it ends."""
    process = holder(tmp_path / "store")
    assert not free(leases)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert free(leases)


def test_a_collection_waits_and_says_so(leases: Leases) -> None:
    """It begins when the last user is done."""
    order: list[str] = []
    waiting = threading.Event()

    def collect() -> None:
        with leases.exclusive(wait=60, on_wait=waiting.set) as alone:
            order.append(f"collected {alone}")

    with leases.shared():
        thread = threading.Thread(target=collect)
        thread.start()
        assert waiting.wait(10)
        order.append("used")
    thread.join()
    assert order == ["used", "collected True"]


def test_a_collection_gives_up(leases: Leases) -> None:
    """A user who doesn't end keeps it out for as long as it wants to wait, and not longer."""
    with leases.shared():
        started = time.monotonic()
        with leases.exclusive(wait=0.25) as alone:
            assert not alone
        assert 0.2 < time.monotonic() - started < 10


def test_a_user_waits_for_a_collection_and_says_so(leases: Leases) -> None:
    """Work that starts during a collection begins after it."""
    order: list[str] = []
    waiting = threading.Event()

    def use() -> None:
        with leases.shared(on_wait=waiting.set):
            order.append("used")

    with leases.exclusive(wait=60) as alone:
        thread = threading.Thread(target=use)
        thread.start()
        assert waiting.wait(10)
        order.append(f"collected {alone}")
    thread.join()
    assert order == ["collected True", "used"]


def test_looking_makes_no_store(tmp_path: Path) -> None:
    """A lease on a store that doesn't exist keeps nothing and leaves nothing, unless it is asked to."""
    store = Store(tmp_path / "none")
    with store.in_use():
        assert not store.root.exists()
    with store.in_use(create=True):
        assert not free(Leases(Layout(store.root)))


def test_a_read_only_store_is_leased_all_the_same(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that may not write locks the file that a writer has made."""
    assert free(leases)
    real = os.open

    def read_only(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", read_only)
    with leases.shared():
        monkeypatch.undo()
        assert not free(leases)


def test_without_locks_work_goes_on_and_nothing_is_collected(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that has no locks a collection is refused, so users need none."""

    def none_here(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none_here)
    with leases.shared():
        pass
    with pytest.raises(StoreNotWritable, match="locks"), leases.exclusive(wait=60):
        pass
