"""Leases: whoever uses a store holds one, and nothing is collected meanwhile.

A lease is a shared lock of the operating system on one file of the store; collecting garbage takes the
exclusive one. It ends with its process, however that ends, so there is nothing to clean up after a crash.
One lock for the whole store keeps the rule simple enough to be believed: while anybody works, nothing is
deleted. Lists of what each process uses would let a collection run beside a long run, at the price of a race
between looking a result up and listing it.

A collection gives way: as long as others come and go without a gap it waits, up to the time that it was
given, and then gives up. A queue would let it in sooner, but everybody else would then wait behind it for the
longest run of all.

A store that can only be read, and whose lease file nobody has made yet, is used without a lease.

Example:
    >>> import tempfile
    >>> leases = Leases(Layout(Path(tempfile.mkdtemp())))
    >>> with leases.shared(), leases.shared():
    ...     with leases.exclusive() as alone:
    ...         print(alone)
    False
    >>> with leases.exclusive() as alone:
    ...     print(alone)
    True
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ltx_cache.errors import StoreNotWritable
from ltx_cache.files import writing
from ltx_cache.layout import Layout
from ltx_cache.locks import NO_LOCKS_HERE

_BUSY = {errno.EAGAIN, errno.EACCES}
# Seconds between two tries: a lock can't be waited for with a time limit, except by a signal.
_PAUSE = 0.1


class Leases:
    """The leases of one store.

    Attributes:
        path: The file that is locked.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.path = layout.folder("locks") / "in-use.lease"

    @contextmanager
    def shared(self, *, create: bool = True, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Keep the store from being collected during the block; waits for a collection to end.

        Args:
            create: Make the store if there is none; else there is nothing to keep.
            on_wait: Called once if a collection runs, before the wait.
        """
        fd = self._open_shared() if create or self._layout.root.is_dir() else None
        try:
            if fd is not None:
                _share(fd, on_wait)
            yield
        finally:
            if fd is not None:
                os.close(fd)

    @contextmanager
    def exclusive(self, *, wait: float = 0.0, on_wait: Callable[[], None] | None = None) -> Iterator[bool]:
        """Have the store alone during the block.

        Args:
            wait: Seconds to wait until nobody uses it.
            on_wait: Called once before the wait.

        Yields:
            Whether the store is ours; False if it was in use all the time.

        Raises:
            StoreNotWritable: The file system has no locks, or the lease file can't be made.
        """
        self._layout.writable_folder("locks")
        with writing(self.path):
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            alone = _alone(self.path, fd)
            if not alone and wait > 0:
                if on_wait is not None:
                    on_wait()
                alone = _alone_within(self.path, fd, wait)
            yield alone
        finally:
            os.close(fd)

    def _open_shared(self) -> int | None:
        """The lease file; None if there is none and none can be made."""
        try:
            self._layout.writable_folder("locks")
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except (OSError, StoreNotWritable):
            pass
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None


def _share(fd: int, on_wait: Callable[[], None] | None) -> None:
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _BUSY:
                raise
            if on_wait is not None:
                on_wait()
            fcntl.flock(fd, fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:  # where nobody can lock, nobody can collect either
            raise


def _alone_within(path: Path, fd: int, seconds: float) -> bool:
    """Take the exclusive lock as soon as nobody holds one; False if that takes longer."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(_PAUSE, left))
        if _alone(path, fd):
            return True
    return False


def _alone(path: Path, fd: int) -> bool:
    """Take the exclusive lock; False if another holds one."""
    with writing(path):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _BUSY:
                raise
            return False
    return True
