"""Digests of files outside the store, such as checkpoints of many gigabytes, computed once.

A stamp in the store, named by the file's real path, makes the second call instant. A file that was changed
less than two seconds before it was hashed gets no stamp: on a file system with coarse times it could change
again without looking different (git calls such a file racily clean). Such a file, or one with a time in the
future, is hashed on every call.

Example:
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "model").write_bytes(b"hello")
    >>> from ltx_cache.layout import Layout
    >>> FileDigests(Stamps(Layout(folder / "store"))).digest(folder / "model")[:8]
    '2cf24dba'
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from ltx_cache.canonical import digest
from ltx_cache.errors import FileChanged
from ltx_cache.files import reading
from ltx_cache.hashing import hash_file
from ltx_cache.stamps import Stamps, changed

# The coarsest times in use are those of FAT: two seconds.
RACY_NS = 2_000_000_000

Progress = Callable[[int, int], None]


class FileDigests:
    """Digests of outside files, with stamps."""

    def __init__(self, stamps: Stamps) -> None:
        self._stamps = stamps

    def digest(self, path: Path, progress: Progress | None = None) -> str:
        """The sha256 of a file.

        Args:
            path: The file; links are followed.
            progress: Told the bytes hashed so far and in all, while the file is hashed.

        Raises:
            FileNotReadable: It can't be read.
            FileChanged: It changed while it was read.
        """
        with reading(path):
            real = path.resolve(strict=True)
            name = f"file-{digest(os.fsencode(real))}"
            with real.open("rb", buffering=0) as file:
                before = os.fstat(file.fileno())
                known = self._stamps.find(name, before)
                if known is not None:
                    return known
                started = time.time_ns()
                found = hash_file(file, _counted(progress, before.st_size))
                if changed(file, before):
                    raise FileChanged(path)
        if max(before.st_mtime_ns, before.st_ctime_ns) < started - RACY_NS:
            self._stamps.keep(name, before, found)
        return found


def _counted(progress: Progress | None, total: int) -> Callable[[int], None] | None:
    """Turn "so many more bytes" into "so many of so many"."""
    if progress is None:
        return None
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total)

    return count
