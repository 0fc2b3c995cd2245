"""Locks between processes.

A lock spares two processes the same work; nothing in the store relies on it. It is a lock of the operating
system, so it ends with the process that holds it, however that ends. The file that stays means nothing.
Some network file systems grant such a lock to everyone, and some have none: then both processes do the work,
and publish the same result.

Example:
    >>> import tempfile
    >>> locks = Locks(Layout(Path(tempfile.mkdtemp())))
    >>> with locks.hold("program-1f0c") as exclusive:
    ...     exclusive
    True
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ltx_cache.files import writing
from ltx_cache.layout import Layout
from ltx_cache.names import checked_name

if TYPE_CHECKING:
    from filelock import FileLock

NO_LOCKS_HERE = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


class Locks:
    """The locks of one store."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @contextmanager
    def hold(
        self,
        name: str,
        on_wait: Callable[[], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[bool]:
        """Hold a lock during the block; wait for it as long as it takes.

        Args:
            name: What is locked.
            on_wait: Called once if another holds it, before the wait.
            cancelled: Asked again and again during the wait: whether to give up.

        Yields:
            Whether the file system has locks at all; if not, another may be at the same work.

        Raises:
            BadName: The store doesn't take the name.
            StoreNotWritable: The lock file can't be made.
            CancelledError: The wait was given up.
        """
        path = self._layout.writable_folder("locks") / f"{checked_name('lock', name)}.lock"
        with ExitStack() as held:
            yield _acquire(held, path, on_wait, cancelled)


def _acquire(
    held: ExitStack,
    path: Path,
    on_wait: Callable[[], None] | None,
    cancelled: Callable[[], bool] | None,
) -> bool:
    from filelock import FileLock, Timeout  # only builds lock, and every command would pay for it

    # A soft lock would outlive a killed holder.
    lock = FileLock(path, fallback_to_soft=False)
    with writing(path):
        try:
            try:
                held.enter_context(lock.acquire(timeout=0))
            except Timeout:
                if on_wait is not None:
                    on_wait()
                held.enter_context(_awaited(lock, cancelled))
        except OSError as error:
            if error.errno not in NO_LOCKS_HERE:
                raise
            return False
    return True


def _awaited(lock: FileLock, cancelled: Callable[[], bool] | None) -> AbstractContextManager[object]:
    from concurrent.futures import CancelledError

    from filelock import Timeout

    try:
        return lock.acquire(cancel_check=cancelled)
    except Timeout:
        raise CancelledError(lock.lock_file) from None
