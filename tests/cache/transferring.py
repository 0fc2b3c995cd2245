"""Pushes and pulls that are killed at every system call that changes a file, one child per call.

    python transferring.py FOLDER push|pull

Makes FOLDER/0, FOLDER/1, ..., each with a `store`, a `remote` and for pulls an `other` store: in the last one
the child came to its end. Prints the calls, in order. If the environment has HF_ENDPOINT, the remotes are
repositories `org/<n>` there, and requests are calls too.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from collecting import reach
from crashing import CALLS, killing

from ltx_cache.blobref import BlobRef
from ltx_cache.canonical import canonical
from ltx_cache.folder_remote import FolderRemote
from ltx_cache.hub import library
from ltx_cache.hub_remote import HubRemote
from ltx_cache.remote import POINTER_LIMIT, Publication, encode_pointer
from ltx_cache.store import Store
from ltx_cache.transfer import pull, push

OLD, NEW = (b"shared weights", b"old program"), (b"shared weights", b"new program")
NAME = "bundle"
DAMAGED = {
    "torn.json": b"{}",
    "lost.json": encode_pointer(BlobRef("0" * 64, 9)),
    "giant.json": b" " * (POINTER_LIMIT + 1),
    "._tiny.json": b"what macOS leaves on disks",
    "UPPER.json": b"",
}
"""Files in the folder of pointers that lead nowhere."""


def remote(root: Path, endpoint: str | None = os.environ.get("HF_ENDPOINT")) -> FolderRemote | HubRemote:
    """The remote; blobs come one after another, so that the calls have one order."""
    found = HubRemote(f"org/{root.name}", endpoint=endpoint) if endpoint else FolderRemote(root / "remote")
    found.connections = 1
    return found


def card(earlier: str | None, manifests: Mapping[str, bytes]) -> str:
    """A README that tells the names."""
    return " ".join(manifests)


def publish(store: Store, contents: tuple[bytes, ...]) -> None:
    """A bundle of these blobs."""
    manifest = canonical([store.put_bytes(data).json() for data in contents])
    store.set_ref(NAME, store.put_bytes(manifest))


def prepare(root: Path, direction: str) -> None:
    """The old bundle is where the new one shall go."""
    store = Store(root / "store")
    publish(store, OLD)
    send(root)
    if direction == "pull":
        receive(root)
    publish(store, NEW)
    if direction == "pull":
        send(root)


def send(root: Path) -> None:
    """Push the store's bundle."""
    store = Store(root / "store")
    data = store.open(store.ref(NAME)).read_bytes()
    remote(root).create(private=False)
    push(store, remote(root), Publication(NAME, data, {"a" * 64: b"signature"}, card), reach)


def receive(root: Path) -> None:
    """Pull the bundle into the other store."""
    other = Store(root / "other")
    with other.in_use(create=True):
        there = remote(root).read(NAME)
        assert there is not None
        other.set_ref(NAME, pull(other, remote(root), there, reach).manifest)


def killed(root: Path, direction: str, at: int) -> bool:
    """Run a child; whether it was killed, as opposed to done."""
    prepare(root, direction)
    pid = os.fork()
    if pid == 0:
        trace = list[str]()
        for name in CALLS:
            setattr(os, name, killing(name, at, False, trace))
        if "HF_ENDPOINT" in os.environ:
            import httpx

            os.request = httpx.Client.send
            httpx.Client.send = killing("request", at, False, trace)
        (send if direction == "push" else receive)(root)
        print(*trace, flush=True)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status != 0


def main(folder: Path, direction: str) -> None:
    """Kill at every call."""
    import filelock  # noqa: F401  (so that no child reads its files under the wrapped calls)

    if "HF_ENDPOINT" in os.environ:
        library()

    at = 0
    while killed(folder / str(at), direction, at):
        at += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
