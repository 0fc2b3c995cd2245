"""Blobs that arrive in pieces, over the lives of several processes.

What has arrived stays in `partial/<digest>` when its process ends, however it ends. The next one goes on from
there, after hashing what it found. Nothing is visible as a blob before all of it is there and has the right
digest; bytes that turn out to be wrong are thrown away.

Example:
    >>> import tempfile
    >>> layout = Layout(Path(tempfile.mkdtemp()))
    >>> ref = BlobRef.of(b"hello")
    >>> for piece in (b"hel", b"lo"):
    ...     with partial(layout, ref) as part:
    ...         print(part.offset)
    ...         part.write(piece)
    0
    3
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import WrongBytes
from ltx_cache.files import make_folder, sync_folder, writing
from ltx_cache.hashing import StreamHash, chunks
from ltx_cache.layout import Layout

FOLDER = "partial"
_READ_ONLY = 0o444


class Partial:
    """One blob being received.

    Attributes:
        offset: Number of bytes that are there; the next one to write.
    """

    def __init__(self, path: Path, fd: int, sha: StreamHash, offset: int) -> None:
        self._path = path
        self._fd = fd
        self._sha = sha
        self.offset = offset

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            StorageFull: No space left.
            StoreNotWritable: The store can't be written.
        """
        view = memoryview(data)
        self._sha.feed(view)
        try:
            with writing(self._path):
                while view:
                    view = view[os.write(self._fd, view) :]
        finally:
            self._sha.wait()
        self.offset += len(data)

    def publish(self, ref: BlobRef, target: Path) -> None:
        """Make the file durable, then visible as the blob.

        Raises:
            WrongBytes: It isn't the blob; it is thrown away.
            StorageFull: No space left.
            StoreNotWritable: The store can't be written.
        """
        found = BlobRef(self._sha.hexdigest(), self.offset)
        with writing(self._path):
            if found != ref:
                self._path.unlink(missing_ok=True)
                raise WrongBytes(f"{ref.sha256} ({ref.size} bytes)", f"{found.sha256} ({found.size} bytes)")
            os.fchmod(self._fd, _READ_ONLY)
            os.fsync(self._fd)
            make_folder(target.parent)
            self._path.replace(target)
            sync_folder(target.parent)


def arrived(layout: Layout, ref: BlobRef) -> int:
    """Bytes of a blob that an earlier try has left, as far as they can be told."""
    with suppress(OSError):
        return min(ref.size, (layout.folder(FOLDER) / ref.sha256).stat().st_size)
    return 0


@contextmanager
def partial(layout: Layout, ref: BlobRef) -> Iterator[Partial]:
    """Go on with a blob; what is written stays when the block ends.

    One process at a time: what two write into one file has the wrong digest, and is thrown away.

    Raises:
        StorageFull: No space left.
        StoreNotWritable: The store can't be written.
    """
    path = layout.writable_folder(FOLDER) / ref.sha256
    with writing(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        sha, size = StreamHash(), 0
        with writing(path), open(fd, "rb", buffering=0, closefd=False) as file:
            for chunk in chunks(file):
                sha.feed(chunk)
                size += chunk.nbytes
            if size > ref.size:
                os.ftruncate(fd, 0)
                sha, size = StreamHash(), 0
        yield Partial(path, fd, sha, size)
    finally:
        os.close(fd)
