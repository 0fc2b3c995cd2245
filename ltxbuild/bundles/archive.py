"""A bundle as one file: a plain tar of `bundle.json.sha256`, `bundle.json` and `blobs/<sha256>`, in order.

The same bundle gives the same bytes: blobs are sorted, and there are no times, owners or permissions. What
`tar` unpacks of it is a bundle directory that `ltx-run` takes.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from ltx_cache.blobref import BlobRef
from ltx_cache.files import TempFile, make_folder, reading, sync_folder, writing
from ltx_cache.hashing import chunks
from ltx_cache.store import Store
from ltx_run.contents import contents
from ltx_run.errors import OutputError
from ltx_run.lookup import MANIFEST, MANIFEST_DIGEST, digest_line

BLOCK = tarfile.BLOCKSIZE
Write = Callable[[memoryview], None]


def pack(store: Store, manifest: BlobRef, target: Path) -> int:
    """Write a bundle's archive, complete or not at all.

    Returns:
        The number of bytes.

    Raises:
        LtxError: A blob is missing or damaged, or the target can't be written.
    """
    data, refs = _read(store, manifest)
    size = 0
    with TempFile(target.absolute().parent) as temp:

        def write(piece: memoryview) -> None:
            nonlocal size
            temp.write(piece)
            size += piece.nbytes

        for name, content in _texts(data):
            _write_member(write, name, content)
        for ref in refs:
            write(memoryview(_header(f"blobs/{ref.sha256}", ref.size)))
            _copy(store.open(ref), write)
            write(memoryview(bytes(-ref.size % BLOCK)))
        write(memoryview(bytes(2 * BLOCK)))
        temp.publish(target)
    return size


def unfold(store: Store, manifest: BlobRef, folder: Path) -> int:
    """Write a bundle's directory, complete or not at all.

    Returns:
        The number of bytes.

    Raises:
        OutputError: The directory exists.
        LtxError: A blob is missing or damaged, or the directory can't be written.
    """
    data, refs = _read(store, manifest)
    folder = folder.absolute()
    if folder.exists():
        raise OutputError(f"{folder} exists", hint="name a directory that doesn't")
    part = folder.with_name(f".{folder.name}.part")
    with writing(part):
        shutil.rmtree(part, ignore_errors=True)
        make_folder(part / "blobs")
        for ref in refs:
            with TempFile(part) as temp:
                _copy(store.open(ref), temp.write)
                temp.publish(part / "blobs" / ref.sha256)
        for name, content in _texts(data):
            with TempFile(part) as temp:
                temp.write(memoryview(content))
                temp.publish(part / name)
        part.rename(folder)
        sync_folder(folder.parent)
    return sum(ref.size for ref in refs) + len(data)


def _read(store: Store, manifest: BlobRef) -> tuple[bytes, list[BlobRef]]:
    data = store.open(manifest).read_bytes()
    return data, sorted(contents(data), key=lambda ref: ref.sha256)


def _texts(data: bytes) -> tuple[tuple[str, bytes], ...]:
    # The manifest comes last: a directory that has one is complete.
    return (MANIFEST_DIGEST, digest_line(data)), (MANIFEST, data)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def _write_member(write: Write, name: str, content: bytes) -> None:
    write(memoryview(_header(name, len(content)) + content + bytes(-len(content) % BLOCK)))


def _copy(path: Path, write: Write) -> None:
    with reading(path), path.open("rb", buffering=0) as file:
        for chunk in chunks(file):
            write(chunk)
