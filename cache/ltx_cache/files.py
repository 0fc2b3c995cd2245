"""Files that are there completely or not at all.

Everything that the store makes visible goes through `TempFile.publish`: written under a temporary name in the
same file system, flushed to the disk, renamed, and the folder flushed too. Whatever stops the process, even a
power cut, a reader sees the old file or the new one.

Example:
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with TempFile(folder / "tmp") as temp:
    ...     temp.write(memoryview(b"hello"))
    ...     temp.publish(folder / "greetings" / "hello.txt")
    >>> (folder / "greetings" / "hello.txt").read_bytes(), list((folder / "tmp").iterdir())
    (b'hello', [])
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ltx_cache.errors import FileNotReadable, StorageFull, StoreNotWritable

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into the store's error; `path` is named if the error names none.

    Raises:
        StorageFull: The disk or the quota is used up.
        StoreNotWritable: Anything else.
    """
    try:
        yield
    except OSError as error:
        kind = StorageFull if error.errno in _FULL else StoreNotWritable
        raise kind(Path(error.filename2 or error.filename or path), error.strerror or str(error)) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into `FileNotReadable`.

    Raises:
        FileNotReadable: The file can't be opened or read.
    """
    try:
        yield
    except OSError as error:
        raise FileNotReadable(path, error.strerror or str(error)) from error


class TempFile:
    """A new file in `folder` that vanishes at the end of the block, unless it was published.

    Its name tells host and process, so that what a killed process left can be told from what a live one
    writes.
    """

    def __init__(self, folder: Path, mode: int = 0o666) -> None:
        self._path = folder / _temp_name()
        with writing(folder):
            if not folder.is_dir():  # its own name need not last
                make_folder(folder)
            # A mode given here, not by a later chmod, obeys the user's umask; it doesn't bind this handle.
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        self._open = True

    def write(self, data: memoryview) -> None:
        """Append flat bytes.

        Raises:
            StorageFull: No space left.
            StoreNotWritable: The file can't be written.
        """
        with writing(self._path):
            while data:
                data = data[os.write(self._fd, data) :]

    def replace(self, target: Path) -> None:
        """Make the file visible as `target`, unflushed: after a power cut it may be empty, wrong or gone.

        Raises:
            StoreNotWritable: The target can't be written.
        """
        with writing(target):
            self._close()
            target.parent.mkdir(exist_ok=True)
            self._path.replace(target)

    def publish(self, target: Path) -> None:
        """Make the file durable, then visible as `target`, replacing what was there.

        Raises:
            StorageFull: No space left.
            StoreNotWritable: The target can't be written.
        """
        with writing(target):
            os.fsync(self._fd)
            self._close()
            make_folder(target.parent)
            self._path.replace(target)
            sync_folder(target.parent)

    def discard(self) -> None:
        """Remove the file; does nothing once it is published or discarded."""
        self._close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.discard()


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each durably; the name of one that is there is flushed.

    Raises:
        OSError: It can't be made.
    """
    if folder.is_dir():
        with suppress(PermissionError):  # above the store is a folder that this user may not read
            sync_folder(folder.parent)  # whoever made it may have been killed before this
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk.

    Raises:
        OSError: The folder can't be opened or flushed.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file system has no such operation, as some network ones
            raise
    finally:
        os.close(fd)


def host_name() -> str:
    """This machine's name as it stands in the names of temporary files."""
    return re.sub(r"[^A-Za-z0-9.]", "_", os.uname().nodename)[:64]


def _temp_name() -> str:
    return f"{host_name()}-{os.getpid()}-{os.urandom(6).hex()}"
