"""Receiving blobs from a remote: several at a time, each from where an earlier try has stopped.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ltx_cache.folder_remote import FolderRemote
    >>> remote, store = FolderRemote(Path(tempfile.mkdtemp())), Store(Path(tempfile.mkdtemp()))
    >>> ref = BlobRef.of(b"hello")
    >>> remote.put([(ref, b"hello")], lambda count: None)
    >>> fetch(store, remote, [ref])
    (1, 5)
    >>> fetch(store, remote, [ref])
    (0, 0)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from threading import Event, Lock

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import CorruptBlob, MissingBlob, RemoteFailed, StorageFull
from ltx_cache.layout import Layout
from ltx_cache.partial import arrived
from ltx_cache.remote import Remote
from ltx_cache.store import Store

Progress = Callable[[int, int], None]
"""Told the bytes done and the bytes in all."""


def fetch(
    store: Store, remote: Remote, refs: Sequence[BlobRef], progress: Progress | None = None
) -> tuple[int, int]:
    """Receive those blobs that the store lacks; goes on with what an earlier try has left.

    Returns:
        Number of blobs that travelled, and bytes.

    Raises:
        StorageFull: They don't fit on the disk; nothing was received.
        WrongBytes: The remote sent other bytes; they were thrown away.
        LtxError: The remote or the store can't be used.
    """
    missing = [ref for ref in dict.fromkeys(refs) if not _is_sound(store, ref)]
    if not missing:
        return 0, 0
    layout = Layout(store.root)
    check_room(store, sum(ref.size - arrived(layout, ref) for ref in missing))
    receiver = _Receiver(store, remote, sum(ref.size for ref in missing), progress)
    receiver.run(sorted(missing, key=lambda ref: -ref.size))
    return len(missing), receiver.travelled


def check_room(store: Store, needed: int) -> None:
    """Refuse what can't fit before anything is written.

    Raises:
        StorageFull: It can't.
    """
    folder = next(parent for parent in (store.root, *store.root.parents) if parent.is_dir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageFull(store.root, f"{needed} bytes are needed, {free} are free")


class _Receiver:
    """Receives blobs in threads; the first error stops all of them.

    Attributes:
        travelled: Bytes that came over the wire.
    """

    def __init__(self, store: Store, remote: Remote, total: int, progress: Progress | None) -> None:
        self._store = store
        self._remote = remote
        self._total = total
        self._progress = progress
        self._lock = Lock()
        self._stop = Event()
        self._done = 0
        self.travelled = 0

    def run(self, refs: Sequence[BlobRef]) -> None:
        """Receive the blobs in this order."""
        from concurrent.futures import ThreadPoolExecutor, as_completed

        with ThreadPoolExecutor(min(self._remote.connections, len(refs))) as pool:
            try:
                for future in as_completed([pool.submit(self._one, ref) for ref in refs]):
                    future.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _one(self, ref: BlobRef) -> None:
        with self._store.lock(f"receive-{ref.sha256}", cancelled=self._stop.is_set):
            if self._store.has(ref):  # another process has received it meanwhile
                self._tell(ref.size, 0)
            else:
                self._receive(ref)

    def _receive(self, ref: BlobRef) -> None:
        with self._store.receive(ref) as part:
            self._tell(part.offset, 0)
            if part.offset < ref.size:
                for piece in self._remote.get(ref.sha256, part.offset):
                    if piece:
                        part.write(piece)
                        self._tell(len(piece), len(piece))
                    # More than it has is wrong already, and may have no end.
                    if part.offset > ref.size or self._stop.is_set():
                        break
            arrived = part.offset
        if arrived < ref.size and not self._stop.is_set():
            raise RemoteFailed(
                f"{self._remote.url} sent {arrived} of the {ref.size} bytes of blob {ref.sha256}",
                hint="run this again: it goes on from there",
            )

    def _tell(self, count: int, travelled: int) -> None:
        with self._lock:
            self._done += count
            self.travelled += travelled
            if self._progress is not None:
                self._progress(self._done, self._total)


def _is_sound(store: Store, ref: BlobRef) -> bool:
    """Whether the store has the blob; one that is damaged is set aside, so that it comes anew."""
    try:
        store.open(ref)
        store.settle(ref)
    except (MissingBlob, CorruptBlob):
        return False
    return True
