"""Stamps: what stands for a hash that was computed before.

A stamp is a file's size, times of change and inode at the time it was hashed. While they are the same, the
file need not be hashed again. They never prove that the bytes are the same: a disk that rots keeps them all,
and so does whoever writes to the raw device. That is what `paranoid` and the second hash are for.

A stamp that is missing, damaged or can't be written costs one more hash, never an error.

Example:
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> stamps = Stamps(Layout(folder))
    >>> status = folder.stat()
    >>> stamps.keep("folder", status, "no digest")
    >>> stamps.find("folder", status)
    'no digest'
"""

from __future__ import annotations

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path

from ltx_cache import records
from ltx_cache.errors import StoreNotWritable
from ltx_cache.layout import Layout


def identity(status: os.stat_result) -> list[int]:
    """What stays the same while nobody touches a file: size, time of change, time of status change, inode.

    The time of status change (ctime) is there since tools that put back the time of change, or archives that
    give every file the same one, can't set it.
    """
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def changed(file: FileIO, before: os.stat_result) -> bool:
    """Whether a file that has been read to its end is another than it was before."""
    return file.tell() != before.st_size or identity(os.fstat(file.fileno())) != identity(before)


class Stamps:
    """Stamps of one store, by name."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def find(self, name: str, status: os.stat_result) -> str | None:
        """The digest that was kept for the file, if the file still looks the same."""
        try:
            record = records.decode(self._path(name).read_bytes())
        except (OSError, ValueError):
            return None
        match record:
            case {"identity": kept, "sha256": str(digest)} if kept == identity(status):
                return digest
        return None

    def keep(self, name: str, status: os.stat_result, digest: str) -> None:
        """Remember the digest of a file that looked like this when it was hashed.

        Does nothing if the store can't be written.
        """
        data = records.encode({"identity": identity(status), "sha256": digest})
        # Not flushed, which would take as long as a small blob: what a power cut leaves of it checks itself.
        with suppress(StoreNotWritable), self._layout.temp() as temp:
            temp.write(memoryview(data))
            temp.replace(self._path(name))

    def _path(self, name: str) -> Path:
        return self._layout.folder("stamps") / f"{name}.json"
