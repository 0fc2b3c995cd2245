"""Blobs: read-only files named by the sha256 of their bytes.

Example:
    >>> import tempfile
    >>> layout = Layout(Path(tempfile.mkdtemp()))
    >>> blobs = Blobs(layout, Stamps(layout))
    >>> ref = blobs.put_bytes(b"hello")
    >>> blobs.has(ref), blobs.open(ref).read_bytes()
    (True, b'hello')
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadEntry, CorruptBlob, FileChanged, MissingBlob, StoreNotWritable
from ltx_cache.files import TempFile, make_folder, reading, sync_folder, writing
from ltx_cache.hashing import StreamHash, chunks, hash_file
from ltx_cache.layout import Layout
from ltx_cache.partial import Partial, partial
from ltx_cache.stamps import Stamps, changed
from ltx_cache.writer import BlobWriter, Data

READ_ONLY = 0o444


class Blobs:
    """The blobs of one store."""

    def __init__(self, layout: Layout, stamps: Stamps) -> None:
        self._layout = layout
        self._stamps = stamps

    def path(self, ref: BlobRef) -> Path:
        """Where the blob is, or would be."""
        return self._layout.folder("blobs") / ref.sha256[:2] / ref.sha256

    def has(self, ref: BlobRef) -> bool:
        """Whether a file of that name and size is there; its bytes are not looked at."""
        try:
            return self.path(ref).stat().st_size == ref.size
        except OSError:
            return False

    def settle(self, ref: BlobRef) -> None:
        """Flush the name of a blob that somebody is about to rely on: its writer may not have come to that.

        Raises:
            MissingBlob: It is not there.
            StoreNotWritable: The folder can't be flushed.
        """
        if not self.has(ref):
            raise MissingBlob(ref.sha256, self._layout.root)
        folder = self.path(ref).parent
        with writing(folder):
            make_folder(folder)
            sync_folder(folder)

    def writer(self) -> BlobWriter:
        """A writer for a new blob."""
        return BlobWriter(lambda: self._layout.temp(READ_ONLY), self._publish)

    def put_bytes(self, data: Data) -> BlobRef:
        """Store bytes.

        Raises:
            StorageFull: No space left.
            StoreNotWritable: The store can't be written.
        """
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def put_file(self, path: Path) -> BlobRef:
        """Store a copy of a file.

        Raises:
            FileNotReadable: The file can't be read.
            FileChanged: It changed while it was read.
            StorageFull: No space left.
            StoreNotWritable: The store can't be written.
        """
        with reading(path), path.open("rb", buffering=0) as source, self._layout.temp(READ_ONLY) as temp:
            before = os.fstat(source.fileno())
            ref = _copy(source, temp)
            if changed(source, before):
                raise FileChanged(path)
            self._publish(temp, ref)
        return ref

    @contextmanager
    def receive(self, ref: BlobRef) -> Iterator[Partial]:
        """Receive a blob in pieces; at the end of the block it is published if it is complete.

        Raises:
            WrongBytes: As many bytes came as should, and they are not the blob's.
            StorageFull: No space left.
            StoreNotWritable: The store can't be written.
        """
        path = self.path(ref)
        with partial(self._layout, ref) as part:
            yield part
            if part.offset >= ref.size:
                part.publish(ref, path)
                with writing(path):
                    self._stamps.keep(ref.sha256, path.stat(), ref.sha256)

    def open(self, ref: BlobRef, *, paranoid: bool = False) -> Path:
        """The path of a blob whose bytes were verified, now or (not `paranoid`) when its stamp was made.

        Raises:
            MissingBlob: It is not there.
            CorruptBlob: Its bytes are not what its name says; it was moved to `quarantine/`.
            BadEntry: The bytes are right and the size in the reference is wrong.
            FileNotReadable: It can't be read.
        """
        path = self.path(ref)
        with reading(path):
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                raise MissingBlob(ref.sha256, self._layout.root) from None
            with file:
                status = os.fstat(file.fileno())
                if not paranoid and status.st_size == ref.size and self._is_stamped(ref.sha256, status):
                    return path
                found, size = hash_file(file), file.tell()
        if found != ref.sha256:
            if not _is_still(path, status):  # another process set it aside or repaired it
                return self.open(ref, paranoid=paranoid)
            grave = self._set_aside(path, status)
            raise CorruptBlob(
                ref.sha256, grave, f"{ref.sha256} ({ref.size} bytes)", f"{found} ({size} bytes)"
            )
        if size != ref.size:
            raise BadEntry(f"blob {ref.sha256}", f"its reference says {ref.size} bytes, it has {size}")
        self._stamps.keep(ref.sha256, status, found)
        return path

    def _is_stamped(self, digest: str, status: os.stat_result) -> bool:
        return self._stamps.find(digest, status) == digest

    def _publish(self, temp: TempFile, ref: BlobRef) -> None:
        """Make a written file the blob, unless a verified one is already there."""
        path = self.path(ref)
        with writing(path):
            if path.exists() and self._is_stamped(ref.sha256, path.stat()):
                temp.discard()
                self.settle(ref)
                return
        # A file without a valid stamp may be damaged, ours is not: replace it.
        temp.publish(path)
        with writing(path):
            self._stamps.keep(ref.sha256, path.stat(), ref.sha256)

    def _set_aside(self, path: Path, status: os.stat_result) -> Path | None:
        """Move a damaged blob out of reach; None if the store can't be written."""
        try:
            grave = self._layout.writable_folder("quarantine") / f"{path.name}-{status.st_ino}"
            path.replace(grave)
        except (OSError, StoreNotWritable):
            return None
        return grave


def _is_still(path: Path, status: os.stat_result) -> bool:
    try:
        return path.stat().st_ino == status.st_ino
    except OSError:
        return False


def _copy(source: FileIO, temp: TempFile) -> BlobRef:
    sha, size = StreamHash(), 0
    for chunk in chunks(source):
        sha.feed(chunk)
        temp.write(chunk)
        size += chunk.nbytes
    return BlobRef(sha.hexdigest(), size)
