"""A collection that is killed at every system call that changes a file, one child per call.

    python collecting.py FOLDER

Makes the stores FOLDER/0, FOLDER/1, ...: in the last one the child came to its end. Prints the calls.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from crashing import CALLS, killing

from ltx_cache.blobref import BlobRef
from ltx_cache.canonical import canonical, parse
from ltx_cache.gc import Limits, collect
from ltx_cache.key import Factor, Key
from ltx_cache.store import Store

BUNDLE = (b"program", b"weights")
UNUSED = (b"oldest", b"older", b"latest")
LIMITS = Limits(keep=1)


def key(name: bytes) -> Key:
    """A key of its own for each content."""
    return Key("program", (Factor("name", name.decode()),))


def reach(manifest: bytes) -> list[BlobRef]:
    """Manifests of these tests: JSON lists of blobs."""
    listed = parse(manifest)
    assert isinstance(listed, list)
    return [BlobRef.parse(item) for item in listed]


def prepare(store: Store) -> None:
    """A bundle, results in no bundle, one with a shared and one with a lost blob, and all kinds of litter."""
    blobs = [store.put_bytes(data) for data in BUNDLE]
    store.put_entry(key(BUNDLE[0]), None, [blobs[0]])
    store.set_ref("bundle", store.put_bytes(canonical([ref.json() for ref in blobs])))
    for age, data in enumerate(reversed(UNUSED)):
        store.put_entry(key(data), None, [store.put_bytes(data), blobs[1]])
        time = 2_000_000_000 - age
        os.utime(store.root / "entries" / "program" / f"{key(data).digest}.json", (time, time))
    store.put_entry(key(b"lost"), None, [store.put_bytes(b"lost")])
    store.open(BlobRef.of(b"lost")).unlink()
    store.put_entry(key(b"damaged"), None, [])
    (store.root / "entries" / "program" / f"{key(b'damaged').digest}.json").write_text("{}")
    store.put_entry(Key("table", ()), "no blobs", [])
    store.put_bytes(b"loose")
    (store.root / "quarantine").mkdir()
    (store.root / "quarantine" / "grave").write_text("")
    orphan = store.root / "tmp" / f"{os.uname().nodename}-999999999-0123456789ab"
    orphan.write_text("")
    with store.lock("build-x"):
        pass


def child(root: Path, at: int) -> list[str]:
    """Collect with a kill at one call; returns only if there are fewer calls."""
    store, trace = Store(root), list[str]()
    for name in CALLS:
        setattr(os, name, killing(name, at, False, trace))
    collect(store, reach, LIMITS)
    return trace


def killed(root: Path, at: int) -> bool:
    """Run a child; whether it was killed, as opposed to done."""
    prepare(Store(root))
    pid = os.fork()
    if pid == 0:
        trace = child(root, at)
        print(*trace, flush=True)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status != 0


def main(folder: Path) -> None:
    """Kill at every call."""
    import filelock  # noqa: F401  (so that no child reads its files under the wrapped calls)

    at = 0
    while killed(folder / str(at), at):
        at += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
