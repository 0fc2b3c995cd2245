"""A program that stores something and is killed at every system call that changes a file, one child per call.

    python crashing.py FOLDER

Makes the stores FOLDER/0, FOLDER/1, ...: in the last one the child came to its end. In FOLDER/<n>-torn a
write is cut in half before the kill. Prints the calls, in order.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ltx_cache.key import Factor, Key
from ltx_cache.store import Store

KEY = Key("program", (Factor("jaxlib", "0.10.2"),))
OLD, NEW = b"an old manifest", b"a new manifest"
PARTS = (b"first part, ", b"second part")
CALLS = ("open", "write", "fsync", "replace", "mkdir", "unlink", "close")


def prepare(store: Store) -> None:
    """What is there before: an old entry and a ref to an old manifest."""
    old = store.put_bytes(OLD)
    store.put_entry(KEY, "old", [old])
    store.set_ref("bundle", old)


def work(store: Store) -> None:
    """A small build: a log, a blob, its entry, a manifest, a ref."""
    store.log_path("build").write_text("compiling")
    with store.lock("build"), store.writer() as w:
        for part in PARTS:
            w.write(part)
        blob = w.commit()
        store.put_entry(KEY, "new", [blob])
        store.set_ref("bundle", store.put_bytes(NEW))


def killing(name: str, at: int, torn: bool, trace: list[str]) -> Callable[..., Any]:
    """A system call that kills its process in place of call number `at` (after half a write, if `torn`)."""
    call = getattr(os, name)

    def wrapped(*args: Any, **named: Any) -> Any:
        if len(trace) == at:
            if torn and name == "write":
                call(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        trace.append(name)
        return call(*args, **named)

    return wrapped


def child(root: Path, at: int, torn: bool) -> list[str]:
    """Work with a kill at one call; returns only if there are fewer calls."""
    store, trace = Store(root), list[str]()
    for name in CALLS:
        setattr(os, name, killing(name, at, torn, trace))
    work(store)
    return trace


def killed(root: Path, at: int, torn: bool) -> bool:
    """Run a child; whether it was killed, as opposed to done."""
    prepare(Store(root))
    pid = os.fork()
    if pid == 0:
        trace = child(root, at, torn)
        print(*trace, flush=True)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status != 0


def main(folder: Path) -> None:
    """Kill at every call."""
    import filelock  # noqa: F401  (so that no child reads its files under the wrapped calls)

    at = 0
    while killed(folder / str(at), at, torn=False):
        killed(folder / f"{at}-torn", at, torn=True)
        at += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
