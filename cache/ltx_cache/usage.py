"""Where the bytes of a store are, each counted once.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> _ = store.put_bytes(b"code")
    >>> found = usage(store, lambda manifest: ())
    >>> found.loose, found.refs
    (4, ())
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR

from ltx_cache.census import Reach, census
from ltx_cache.store import Store


@dataclass(frozen=True, slots=True)
class RefUsage:
    """Bytes that one ref reaches.

    Attributes:
        name: The ref.
        size: All of them.
        own: Those that no other ref reaches.
    """

    name: str
    size: int
    own: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes of a store. `total` is the sum of the refs' `own` and of `shared`, `unused`, `loose` and `rest`.

    Attributes:
        refs: The refs by name.
        shared: Reached by more than one ref.
        unused: Results that no ref reaches.
        loose: Blobs that nothing names.
        rest: All other files: records, stamps, logs, quarantined and temporary files.
        total: All files.
    """

    refs: tuple[RefUsage, ...]
    shared: int
    unused: int
    loose: int
    rest: int
    total: int


def usage(store: Store, reach: Reach) -> Usage:
    """Count the bytes of a store.

    Raises:
        LtxError: What a ref reaches can't be told, or a file can't be read.
    """
    counted = census(store, reach)
    times = Counter(digest for digests in counted.refs.values() for digest in digests)
    refs = tuple(
        RefUsage(name, counted.size(digests), counted.size(d for d in digests if times[d] == 1))
        for name, digests in counted.refs.items()
    )
    named = frozenset().union(*(entry.blobs or () for entry in counted.entries)) - times.keys()
    blobs = sum(counted.blobs.values())
    rest = sum(_sizes(store.root)) - blobs
    shared = counted.size(digest for digest, count in times.items() if count > 1)
    loose = blobs - shared - sum(ref.own for ref in refs) - counted.size(named)
    return Usage(refs, shared, counted.size(named), loose, rest, blobs + rest)


def _sizes(root: Path) -> Iterator[int]:
    for path in root.rglob("*"):
        with suppress(FileNotFoundError):  # temporary files come and go
            status = path.lstat()
            if not S_ISDIR(status.st_mode):
                yield status.st_size
