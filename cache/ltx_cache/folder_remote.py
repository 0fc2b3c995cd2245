"""A folder as a remote: a network drive, or a disk that is carried.

Example:
    >>> import tempfile
    >>> remote = FolderRemote(Path(tempfile.mkdtemp()))
    >>> ref = BlobRef.of(b"hello")
    >>> remote.put(ref, b"hello")
    >>> remote.has([ref]) == {ref.sha256}, b"".join(remote.get(ref, 2))
    (True, b'llo')
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import MissingBlob, WrongBytes
from ltx_cache.files import TempFile, reading
from ltx_cache.hashing import CHUNK, StreamHash, chunks
from ltx_cache.names import checked_name
from ltx_cache.remote import decode_pointer, encode_pointer


class FolderRemote:
    """A remote in a folder, which is made by the first `put`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.url = f"file://{root}"

    def has(self, refs: Iterable[BlobRef]) -> set[str]:
        """Digests of the blobs whose files are there with the right size."""
        return {ref.sha256 for ref in refs if self._has(ref)}

    def put(self, ref: BlobRef, source: Path | bytes) -> None:
        """Store a blob; complete and durable when this returns.

        Raises:
            WrongBytes: The source has other bytes.
            FileNotReadable: The source can't be read.
            StoreNotWritable: The folder can't be written.
        """
        sha, size = StreamHash(), 0
        with TempFile(self._root / "tmp") as temp, _pieces(source) as pieces:
            for piece in pieces:
                sha.feed(piece)
                temp.write(piece)
                size += piece.nbytes
            found = BlobRef(sha.hexdigest(), size)
            if found != ref:
                raise WrongBytes(f"{ref.sha256} ({ref.size} bytes)", f"{found.sha256} ({found.size} bytes)")
            temp.publish(self._path(ref))

    def get(self, ref: BlobRef, offset: int) -> Iterator[bytes]:
        """The bytes of a blob from an offset on.

        Raises:
            MissingBlob: It isn't there.
            FileNotReadable: It can't be read.
        """
        path = self._path(ref)
        with reading(path):
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                raise MissingBlob(ref.sha256, self._root) from None
            with file:
                file.seek(offset)
                while piece := file.read(CHUNK):
                    yield piece

    def names(self) -> list[str]:
        """Names of all bundles."""
        return sorted(path.stem for path in (self._root / "bundles").glob("*.json"))

    def read(self, name: str) -> BlobRef | None:
        """The manifest that a pointer names; None if there is no such pointer.

        Raises:
            BadEntry: The pointer is damaged.
            FileNotReadable: It can't be read.
        """
        path = self._pointer(name)
        with reading(path):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                return None
        return decode_pointer(str(path), data)

    def move(self, name: str, manifest: BlobRef) -> None:
        """Let a pointer name a manifest. Of two who do that at the same time, the later one stays.

        Raises:
            MissingBlob: The manifest isn't there.
            StoreNotWritable: The folder can't be written.
        """
        if not self._has(manifest):
            raise MissingBlob(manifest.sha256, self._root)
        with TempFile(self._root / "tmp") as temp:
            temp.write(memoryview(encode_pointer(manifest)))
            temp.publish(self._pointer(name))

    def _has(self, ref: BlobRef) -> bool:
        try:
            return self._path(ref).stat().st_size == ref.size
        except OSError:
            return False

    def _path(self, ref: BlobRef) -> Path:
        return self._root / "blobs" / ref.sha256

    def _pointer(self, name: str) -> Path:
        return self._root / "bundles" / f"{checked_name('bundle name', name)}.json"


@contextmanager
def _pieces(source: Path | bytes) -> Iterator[Iterator[memoryview]]:
    if isinstance(source, bytes):
        yield iter([memoryview(source)])
        return
    with reading(source):
        file = source.open("rb", buffering=0)
    with file:
        yield chunks(file)
