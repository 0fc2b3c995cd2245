"""Reading a bundle's archive, which may come from anywhere, into the store.

Nothing in it is trusted. Its only names are `bundle.json.sha256`, `bundle.json` and `blobs/<sha256>`, so
nothing can be written elsewhere; the only type is the regular file; sizes are those in the manifest, which
comes first; every blob is hashed on its way into the store. Headers are not left to `tarfile`, whose
extensions can name other files and sizes.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import LtxError
from ltx_cache.names import checked_name
from ltx_cache.receive import check_room
from ltx_cache.remote import MANIFEST_LIMIT
from ltx_cache.store import Store
from ltx_run.contents import contents, parsed
from ltx_run.lookup import MANIFEST, MANIFEST_DIGEST, digest_line

BLOCK = tarfile.BLOCKSIZE
CHUNK = 2 << 20
_BLOB = re.compile(r"blobs/([0-9a-f]{64})")
_TYPES = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.DIRTYPE: "a directory",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


class ArchiveInvalid(LtxError):
    """A file that is no bundle archive, or a damaged or forged one; nothing was named."""

    exit_code = 2


def unpack(source: BinaryIO, store: Store, name: str | None = None) -> tuple[str, BlobRef]:
    """Read an archive into the store and name its bundle.

    Args:
        source: The archive; read once from begin to end.
        store: Where it goes.
        name: Name of the bundle; None for its own.

    Returns:
        The name, and the manifest.

    Raises:
        ArchiveInvalid: It is damaged, forged or no archive of a bundle; nothing is named.
        LtxError: The manifest is of another version, a blob's bytes are wrong, or the store can't be written.
    """
    reader = _Reader(source)
    data = reader.manifest()
    bundle = parsed(data)
    checked = checked_name("bundle name", name or bundle.name)
    wanted = {ref.sha256: ref for ref in contents(data)}
    check_room(store, sum(ref.size for ref in wanted.values() if not store.has(ref)))
    for digest, size in reader.blobs(wanted):
        with store.writer() as writer:
            reader.copy(size, writer.write)
            writer.commit(wanted[digest])
    missing = [digest for digest, ref in wanted.items() if not store.has(ref)]
    if missing:
        raise ArchiveInvalid(f"the archive lacks blobs that its manifest names: {', '.join(missing)}")
    manifest = store.put_bytes(data)
    store.set_ref(checked, manifest)
    return checked, manifest


class _Reader:
    """The members of an archive, in order."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source

    def manifest(self) -> bytes:
        """The manifest, compared with its digest."""
        line, data = self._text(MANIFEST_DIGEST), self._text(MANIFEST)
        if line != digest_line(data):
            raise ArchiveInvalid(f"{MANIFEST} doesn't match {MANIFEST_DIGEST}: the archive is damaged")
        return data

    def blobs(self, wanted: Mapping[str, BlobRef]) -> Iterator[tuple[str, int]]:
        """Digest and size of each blob; its bytes are to be copied before the next one is asked for."""
        seen = set[str]()
        while (member := self._next()) is not None:
            name, size = member
            match = _BLOB.fullmatch(name)
            if match is None or match[1] not in wanted:
                raise ArchiveInvalid(f"the archive holds {name!r}, which its manifest doesn't name")
            if match[1] in seen:
                raise ArchiveInvalid(f"the archive holds {name} twice")
            if size != wanted[match[1]].size:
                found = f"{name} has {size} bytes"
                raise ArchiveInvalid(f"{found}, and {wanted[match[1]].size} according to the manifest")
            seen.add(match[1])
            yield match[1], size

    def copy(self, size: int, write: Callable[[bytes], object]) -> None:
        """Hand out the bytes of a member."""
        left = size
        while left:
            piece = self._source.read(min(CHUNK, left))
            if not piece:
                raise ArchiveInvalid(f"the archive ends {left} bytes before the end of a file in it")
            write(piece)
            left -= len(piece)
        self._exactly(-size % BLOCK)

    def _text(self, expected: str) -> bytes:
        member = self._next()
        if member is None or member[0] != expected:
            found = "nothing" if member is None else repr(member[0])
            raise ArchiveInvalid(f"it is no archive of a bundle: expected {expected}, found {found}")
        if member[1] > MANIFEST_LIMIT:
            raise ArchiveInvalid(f"{expected} has {member[1]} bytes, more than {MANIFEST_LIMIT}")
        pieces: list[bytes] = []
        self.copy(member[1], pieces.append)
        return b"".join(pieces)

    def _next(self) -> tuple[str, int] | None:
        """Name and size of the next member; None at the end."""
        block = self._exactly(BLOCK)
        if not any(block):
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise ArchiveInvalid(f"it is no archive of a bundle: {error}") from None
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            kind = _TYPES.get(info.type, f"of type {info.type!r}")
            raise ArchiveInvalid(f"{info.name!r} in the archive is {kind}; only files may be in it")
        if info.size < 0:
            raise ArchiveInvalid(f"{info.name!r} in the archive has a negative size")
        return info.name, info.size

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._source.read(count - len(data))
            if not piece:
                raise ArchiveInvalid("the archive ends too early")
            data += piece
        return data
