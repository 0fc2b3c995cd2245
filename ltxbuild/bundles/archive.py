"""A bundle as one file: a plain tar of `bundle.json.sha256`, `bundle.json` and `blobs/<sha256>`, in order.

The same bundle gives the same bytes: blobs are sorted, and there are no times, owners or permissions. What
`tar` unpacks of it is a bundle directory that `ltx-run` takes.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import LtxError, StorageFull, StoreNotWritable
from ltx_cache.files import TempFile, make_folder, reading, sync_folder, writing
from ltx_cache.hashing import chunks
from ltx_cache.store import Store
from ltx_run.contents import contents
from ltx_run.errors import OutputError
from ltx_run.lookup import MANIFEST, MANIFEST_DIGEST, digest_line
from ltx_run.targets import check_regular, looking_at, temporary

BLOCK = tarfile.BLOCKSIZE
Write = Callable[[memoryview], None]


class NotWritten(LtxError):
    """An archive or a directory that could not be written; what was there before still is."""


def pack(store: Store, manifest: BlobRef, target: Path) -> int:
    """Write a bundle's archive, complete or not at all. A link stays, and what it leads to is replaced.

    Returns:
        The number of bytes.

    Raises:
        OutputError: Something other than a regular file is there.
        NotWritten: The target can't be written.
        LtxError: A blob is missing or damaged.
    """
    target = _resolved(target, _check_file)
    data, refs = _read(store, manifest)
    size = 0
    with _naming(target), TempFile(target.parent) as temp:

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
        NotWritten: The directory can't be written.
        LtxError: A blob is missing or damaged.
    """
    folder = _resolved(folder, _check_absent)
    data, refs = _read(store, manifest)
    part = temporary(folder)
    try:
        with _naming(folder):
            _fill(part, store, data, refs)
            part.rename(folder)
            sync_folder(folder.parent)
    except BaseException:  # an interrupt too: a part has the size of the bundle
        shutil.rmtree(part, ignore_errors=True)
        raise
    return sum(ref.size for ref in refs) + len(data)


def _fill(part: Path, store: Store, data: bytes, refs: list[BlobRef]) -> None:
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


def _resolved(target: Path, check: Callable[[Path], None]) -> Path:
    """Where a target leads, once it is checked."""
    with looking_at(target):
        check(target)
        return target.resolve()


def _check_file(target: Path) -> None:
    if target.is_dir():
        raise OutputError(
            f"cannot write {target}: it is a directory", hint=f"name a file, e.g. {target / 'bundle.tar'}"
        )
    check_regular(target, hint="name another")


def _check_absent(folder: Path) -> None:
    if folder.exists():
        raise OutputError(f"{folder} exists", hint="name a directory that doesn't")


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Errors name what the user wants written, not a store or what is hidden beside it."""
    try:
        with writing(target):
            yield
    except StoreNotWritable as error:
        full = isinstance(error, StorageFull)
        advice = "free some space there" if full else "make its folder writable for this user"
        raise NotWritten(
            f"cannot write {target}: {error.reason}", hint=f"{advice}, or write it elsewhere"
        ) from error


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
