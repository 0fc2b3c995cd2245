"""Locks, and what the store is worth without them."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import threading
from concurrent.futures import CancelledError

import pytest

from ltx_cache.key import Key
from ltx_cache.store import Hit, Store

HOLDER = """
import sys, time
from pathlib import Path
from ltx_cache.store import Store
with Store(Path(sys.argv[1])).lock("build"):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(store: Store) -> subprocess.Popen[str]:
    """Another process that holds the lock by now."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_killed_process_holds_no_lock(store: Store) -> None:
    """Who waits is told once, and gets the lock when its holder is killed."""
    process = holder(store)
    waits: list[int] = []

    def on_wait() -> None:
        waits.append(1)
        process.kill()

    with store.lock("build", on_wait) as exclusive:
        assert exclusive
    assert waits == [1]
    process.communicate()


def test_a_wait_can_be_given_up(store: Store) -> None:
    """Who waits asks whether anybody still wants the lock; one that is free is taken without asking."""
    process, answers = holder(store), iter([False, False, True])
    with pytest.raises(CancelledError), store.lock("build", cancelled=lambda: next(answers)):
        pytest.fail("another holds it")
    process.kill()
    process.communicate()
    with store.lock("build", cancelled=lambda: pytest.fail("asked")) as exclusive:
        assert exclusive


def test_a_lock_excludes_threads_and_other_names_do_not(store: Store) -> None:
    """Two threads never hold one lock together; locks of other names are free."""
    inside, overlaps, waited = [0], [], []

    def work() -> None:
        for _ in range(5):
            with (
                Store(store.root).lock("build", lambda: waited.append(1)),
                store.lock(f"own-{threading.get_ident()}"),
            ):
                inside[0] += 1
                overlaps.append(inside[0])
                threading.Event().wait(0.005)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [1] * 15
    assert waited


def test_a_free_lock_does_not_wait(store: Store) -> None:
    """Nobody is told to wait for a lock that is free, also after an error in the block."""
    with pytest.raises(ZeroDivisionError), store.lock("build"):
        raise ZeroDivisionError
    with store.lock("build", lambda: pytest.fail("waited")) as exclusive:
        assert exclusive


def test_a_file_system_without_locks_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where locks do not exist, the work goes on and the caller is told."""

    def no_flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_flock)
    with store.lock("build") as exclusive:
        assert not exclusive


def test_a_broken_lock_costs_work_not_results(store: Store) -> None:
    """Two processes that both believe to hold the lock publish one whole result."""
    key = Key("program", ())
    process = holder(store)
    (store.root / "locks" / "build.lock").unlink()
    with store.lock("build", lambda: pytest.fail("the lock should be broken")):
        store.put_entry(key, 1, [store.put_bytes(b"result")])
        Store(store.root).put_entry(key, 1, [store.put_bytes(b"result")])
    process.kill()
    process.communicate()
    found = store.lookup(key)
    assert isinstance(found, Hit)
    assert store.open(found.blobs[0], paranoid=True).read_bytes() == b"result"
