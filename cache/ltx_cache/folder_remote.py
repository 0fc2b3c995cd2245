"""A folder as a remote: a network drive, or a disk that is carried.

Example:
    >>> import tempfile
    >>> remote = FolderRemote(Path(tempfile.mkdtemp()))
    >>> ref = BlobRef.of(b"hello")
    >>> remote.put([(ref, b"hello")], lambda count: print(count, "bytes"))
    5 bytes
    >>> remote.sizes([ref.sha256]) == {ref.sha256: 5}, b"".join(remote.get(ref.sha256, 2))
    (True, b'llo')
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadAddress, BadEntry, BadName, MissingBlob, WrongBytes
from ltx_cache.files import TempFile, make_folder, reading, sync_folder, writing
from ltx_cache.hashing import CHUNK, StreamHash, chunks
from ltx_cache.names import checked_digest
from ltx_cache.remote import (
    CARD,
    CARD_LIMIT,
    POINTER_LIMIT,
    SIGNATURE_LIMIT,
    Publication,
    Source,
    TooLarge,
    blob_path,
    bundle_names,
    card_text,
    decode_pointer,
    encode_pointer,
    manifests,
    pointer_path,
    signature_folder,
    signature_path,
)


class FolderRemote:
    """A remote in a folder, which is made by the first `put`."""

    fixed = False
    connections = 4

    def __init__(self, root: Path) -> None:
        self._root = root
        self.url = f"file://{quote(str(root))}"

    def state(self) -> str | None:
        """None: a folder keeps no history."""
        return None

    def create(self, *, private: bool) -> None:
        """Nothing to make; who may read a folder is up to its permissions.

        Raises:
            BadAddress: It shall be private.
        """
        if private:
            raise BadAddress(
                "a folder can't be made private from here", hint="leave --private out, and use chmod"
            )

    def sizes(self, digests: Iterable[str]) -> dict[str, int]:
        """Sizes of those blobs whose files are there."""
        found = {}
        for digest in digests:
            with suppress(OSError):
                found[digest] = (self._root / blob_path(digest)).stat().st_size
        return found

    def put(self, blobs: Sequence[tuple[BlobRef, Source]], sent: Callable[[int], None]) -> None:
        """Store blobs; each is complete and durable before the next one begins.

        Raises:
            WrongBytes: A source has other bytes.
            FileNotReadable: A source can't be read.
            StoreNotWritable: The folder can't be written.
        """
        for ref, source in blobs:
            self._put(ref, source, sent)

    def _put(self, ref: BlobRef, source: Source, sent: Callable[[int], None]) -> None:
        sha, size = StreamHash(), 0
        with TempFile(self._root / "tmp") as temp, _pieces(source) as pieces:
            for piece in pieces:
                sha.feed(piece)
                temp.write(piece)
                size += piece.nbytes
                sent(piece.nbytes)
            found = BlobRef(sha.hexdigest(), size)
            if found != ref:
                raise WrongBytes(f"{ref.sha256} ({ref.size} bytes)", f"{found.sha256} ({found.size} bytes)")
            temp.publish(self._root / blob_path(ref.sha256))

    def get(self, digest: str, offset: int) -> Iterator[bytes]:
        """The bytes of a blob from an offset on.

        Raises:
            MissingBlob: It isn't there.
            FileNotReadable: It can't be read.
        """
        path = self._root / blob_path(digest)
        with reading(path):
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                raise MissingBlob(digest, self._root) from None
            with file:
                file.seek(offset)
                while piece := file.read(CHUNK):
                    yield piece

    def names(self) -> list[str]:
        """Names of all bundles."""
        return bundle_names(path.name for path in (self._root / "bundles").glob("*.json"))

    def read(self, name: str) -> BlobRef | None:
        """The manifest that a pointer names; None if there is no such pointer.

        Raises:
            BadEntry: The pointer is damaged, or too large to be one.
            FileNotReadable: It can't be read.
        """
        path = self._root / pointer_path(name)
        try:
            data = _content(path, POINTER_LIMIT)
        except TooLarge as error:
            raise BadEntry(path, error.reason) from None
        return None if data is None else decode_pointer(str(path), data)

    def signers(self, manifest: str) -> list[str]:
        """Ids of the keys that signed a manifest."""
        found = []
        for path in (self._root / signature_folder(manifest)).glob("*"):
            with suppress(BadName):
                found.append(checked_digest(path.name))
        return sorted(found)

    def signature(self, manifest: str, key: str) -> bytes | None:
        """The signature of a manifest by a key; None if there is none.

        Raises:
            TooLarge: It is no signature.
            FileNotReadable: It can't be read.
        """
        return _content(self._root / signature_path(manifest, key), SIGNATURE_LIMIT)

    def move(self, publication: Publication) -> None:
        """Let a pointer name a manifest. Of two who do that at the same time, the later one stays.

        Raises:
            MissingBlob: The manifest isn't there.
            RemoteFailed: Nothing can be added to the README that is there; nothing was moved.
            StoreNotWritable: The folder can't be written.
        """
        manifest = publication.manifest
        if not self.sizes([manifest.sha256]):
            raise MissingBlob(manifest.sha256, self._root)
        earlier = card_text(self, _content(self._root / CARD, CARD_LIMIT)) if publication.card else None
        self._settle(self._root / "blobs")
        for key, signature in publication.signatures.items():
            self._write(signature_path(manifest.sha256, key), signature)
        self._write(pointer_path(publication.name), encode_pointer(manifest))
        if publication.card is not None:
            self._write(CARD, publication.card(earlier, manifests(self)).encode())

    def _settle(self, folder: Path) -> None:
        """Flush names that a pointer is about to lead to: who wrote them may have been killed before that."""
        with writing(folder):
            make_folder(folder)
            sync_folder(folder)

    def _write(self, path: str, data: bytes) -> None:
        with TempFile(self._root / "tmp") as temp:
            temp.write(memoryview(data))
            temp.publish(self._root / path)


def _content(path: Path, limit: int) -> bytes | None:
    """What a file holds; None if there is none.

    Raises:
        TooLarge: That is more than a limit.
        FileNotReadable: It can't be read.
    """
    with reading(path):
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            return None
    if len(data) > limit:
        raise TooLarge(str(path), limit)
    return data


@contextmanager
def _pieces(source: Source) -> Iterator[Iterator[memoryview]]:
    if isinstance(source, bytes):
        yield iter([memoryview(source)])
        return
    with reading(source):
        file = source.open("rb", buffering=0)
    with file:
        yield chunks(file)
