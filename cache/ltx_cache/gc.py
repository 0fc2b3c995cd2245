"""Collecting garbage.

The rule:
    1. What a ref reaches stays: its manifest, and every blob that the manifest names.
    2. A result (an entry with its blobs) stays if all its blobs stay by rule 1. An entry without blobs stays.
    3. Other results are unused. Without limits all of them go. With limits those stay, latest first, that are
       within every limit given: not more than `keep`, not older than `older_than`, and none that takes the
       blobs beyond `max_size`.
    4. Entries that are damaged or name missing blobs go; so do blobs that nothing names any more, their
       stamps, locks, what is in quarantine, temporary files of dead processes, and downloads that nobody
       went on with for a day.

The collector has the store alone (see `ltx_cache.leases`), and removes entries before blobs, each step
durably. So wherever it is stopped, every entry that is left has its blobs.

Example:
    >>> import tempfile
    >>> from ltx_cache.key import Key
    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> store.put_entry(Key("program", ()), None, [store.put_bytes(b"code")])
    >>> garbage = collect(store, lambda manifest: (), Limits())
    >>> len(garbage.entries), garbage.size, list(store.entries("program"))
    (1, 4, [])
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ltx_cache.census import Census, Reach, blob_files, census
from ltx_cache.errors import StoreInUse
from ltx_cache.files import host_name, sync_folder, writing
from ltx_cache.layout import Layout
from ltx_cache.leases import Leases
from ltx_cache.store import Store

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Which unused results stay; None is no limit, and without any limit none stays.

    Attributes:
        keep: The number of results, the latest first.
        older_than: Age in seconds from which they go.
        max_size: Bytes of all blobs together, those of bundles counted first.
    """

    keep: int | None = None
    older_than: float | None = None
    max_size: int | None = None


@dataclass(frozen=True, slots=True)
class Garbage:
    """What can go, or went.

    Attributes:
        entries: Records of unused or broken results.
        blobs: Blobs that nothing keeps.
        others: Stamps, locks, quarantined and temporary files.
        size: Bytes of the blobs.
        kept: Bytes of the blobs that stay.
        used: Those of them that bundles reach.
    """

    entries: tuple[Path, ...]
    blobs: tuple[Path, ...]
    others: tuple[Path, ...]
    size: int
    kept: int
    used: int


def garbage(store: Store, reach: Reach, limits: Limits) -> Garbage:
    """What a collection would remove.

    Raises:
        LtxError: What a ref reaches can't be told, or a file can't be read.
    """
    counted = census(store, reach)
    kept, entries = _judged(counted, limits)
    blobs = sorted((path, size) for path, size in blob_files(store) if path.name not in kept)
    return Garbage(
        entries,
        tuple(path for path, _ in blobs),
        tuple(_others(store.root, kept)),
        sum(size for _, size in blobs),
        counted.size(kept),
        counted.size(counted.reached),
    )


def collect(
    store: Store,
    reach: Reach,
    limits: Limits,
    *,
    wait: float = 0.0,
    on_wait: Callable[[], None] | None = None,
) -> Garbage:
    """Remove garbage, alone: waits until nobody uses the store.

    Args:
        store: The store; a caller that holds a lease on it would wait for itself.
        reach: Reads manifests.
        limits: Which unused results stay.
        wait: Seconds to wait.
        on_wait: Called once if the store is in use, before the wait.

    Raises:
        StoreInUse: It was in use all the time; nothing was removed.
        LtxError: What a ref reaches can't be told, or a file can't be read or removed.
    """
    leases = Leases(Layout(store.root))
    with leases.exclusive(wait=wait, on_wait=on_wait) as alone:
        if not alone:
            raise StoreInUse(store.root, wait, leases.path)
        found = garbage(store, reach, limits)
        # Entries first, and flushed: an entry must not come back from a power cut without its blobs.
        for paths in (found.entries, found.blobs, found.others):
            _remove(paths)
    return found


def _judged(counted: Census, limits: Limits) -> tuple[frozenset[str], tuple[Path, ...]]:
    """Digests that stay, and entries that go."""
    reached = counted.reached
    kept, removed = set(reached), list[Path]()
    rest = _Rest(limits, counted.size(reached))
    for entry in counted.entries:
        if entry.blobs is None or not entry.blobs <= counted.blobs.keys():
            removed.append(entry.path)
        elif not entry.blobs <= reached:
            if rest.has_room(entry.time, counted.size(entry.blobs - kept)):
                kept |= entry.blobs
            else:
                removed.append(entry.path)
    return frozenset(kept), tuple(removed)


class _Rest:
    """What the limits leave for unused results, which are offered latest first."""

    def __init__(self, limits: Limits, used: int) -> None:
        self._count = float("inf") if limits.keep is None else limits.keep
        self._oldest = float("-inf") if limits.older_than is None else time.time() - limits.older_than
        self._size = float("inf") if limits.max_size is None else limits.max_size - used
        self._full = limits == Limits()

    def has_room(self, written: float, size: int) -> bool:
        """Whether one more result stays; once one doesn't, no earlier one does."""
        self._full |= self._count < 1 or written <= self._oldest or size > self._size
        if not self._full:
            self._count -= 1
            self._size -= size
        return not self._full


def _others(root: Path, kept: frozenset[str]) -> Iterator[Path]:
    """Files that serve nothing that stays."""
    yield from (path for path in _files(root / "stamps") if _stamps_blob(path) and path.stem not in kept)
    yield from (path for path in _files(root / "locks") if path.suffix == ".lock")
    yield from _files(root / "quarantine")
    yield from (path for path in _files(root / "tmp") if _is_orphan(path))
    yield from (path for path in _files(root / "partial") if _is_old(path))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if not path.is_dir())


def _stamps_blob(path: Path) -> bool:
    """Stamps of files outside the store have another name."""
    return re.fullmatch(r"[0-9a-f]{64}", path.stem) is not None


def _is_orphan(path: Path) -> bool:
    """Whether a temporary file's process is dead, or the file is so old that it must be."""
    old = _is_old(path)
    match = re.fullmatch(r"(.+)-(\d+)-[0-9a-f]+", path.name)
    if match is None or match[1] != host_name():
        return old
    try:
        os.kill(int(match[2]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return old
    return old


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > DAY
    except FileNotFoundError:
        return False


def _remove(paths: Iterable[Path]) -> None:
    """Remove files, then flush their folders."""
    folders = dict[Path, None]()
    for path in paths:
        with writing(path):
            path.unlink(missing_ok=True)
        folders[path.parent] = None
    for folder in folders:
        with writing(folder):
            sync_folder(folder)
