"""Entries: what a key gave, written after everything it names.

Example:
    >>> import tempfile
    >>> from ltx_cache.key import Factor
    >>> from ltx_cache.stamps import Stamps
    >>> layout = Layout(Path(tempfile.mkdtemp()))
    >>> blobs = Blobs(layout, Stamps(layout))
    >>> entries = Entries(layout, blobs)
    >>> key = Key("program", (Factor("jaxlib", "0.10.2"),))
    >>> entries.lookup(key)
    Miss(reason='no entry has this key', missing=())
    >>> entries.put(key, {"flops": 12}, [blobs.put_bytes(b"code")])
    >>> entries.lookup(key).value
    {'flops': 12}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ltx_cache import records
from ltx_cache.blobref import BlobRef
from ltx_cache.blobs import Blobs
from ltx_cache.canonical import JSON
from ltx_cache.errors import BadName
from ltx_cache.files import reading
from ltx_cache.key import Difference, Factor, Key, differences
from ltx_cache.layout import Layout
from ltx_cache.names import checked_name


@dataclass(frozen=True, slots=True)
class Hit:
    """The result of a key, complete.

    Attributes:
        value: What was stored with it.
        blobs: Blobs of the result, in the order given; all of them are there.
    """

    value: JSON
    blobs: tuple[BlobRef, ...]


@dataclass(frozen=True, slots=True)
class Miss:
    """Why a key has no result that can be used.

    Attributes:
        reason: One line for people.
        missing: Blobs of the result that are gone, if that is the reason.
    """

    reason: str
    missing: tuple[BlobRef, ...] = ()


Lookup: TypeAlias = Hit | Miss
NO_ENTRY = "no entry has this key"
"""The reason of a miss that nothing is wrong with."""


class Entries:
    """The entries of one store."""

    def __init__(self, layout: Layout, blobs: Blobs) -> None:
        self._layout = layout
        self._blobs = blobs

    def put(self, key: Key, value: JSON, blobs: Sequence[BlobRef]) -> None:
        """Publish the result of a key in one step, replacing an earlier one.

        Raises:
            MissingBlob: A blob is not there.
            StorageFull: No space left.
            StoreNotWritable: The store can't be written.
            TypeError: The value is not JSON.
            ValueError: The value holds NaN or an infinity.
        """
        for ref in blobs:
            self._blobs.settle(ref)
        entry: JSON = {
            "kind": key.kind,
            "factors": key.values,
            "value": value,
            "blobs": [ref.json() for ref in blobs],
        }
        records.write(self._layout, self._path(key), entry)

    def lookup(self, key: Key) -> Lookup:
        """The result of a key: a hit only if the entry is sound, is of this key, and all its blobs are there.

        Raises:
            FileNotReadable: The entry exists and can't be read.
        """
        path = self._path(key)
        with reading(path):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                return Miss(NO_ENTRY)
        try:
            _, value, blobs = parse_entry(data, key.digest)
        except ValueError as error:
            return Miss(f"the entry is damaged: {error}")
        missing = tuple(ref for ref in blobs if not self._blobs.has(ref))
        if missing:
            return Miss(f"{len(missing)} of {len(blobs)} blobs are gone", missing)
        return Hit(value, blobs)

    def keys(self, kind: str) -> Iterator[Key]:
        """Keys of all sound entries of a kind, latest first, whether or not their blobs are there."""
        folder = self._layout.folder("entries") / checked_name("kind of key", kind)
        for path in sorted(folder.glob("*.json"), key=_latest_first):
            try:
                key, _, _ = parse_entry(path.read_bytes(), path.stem)
            except (OSError, ValueError):
                continue
            yield key

    def nearest(self, key: Key) -> tuple[Key, list[Difference]] | None:
        """The other key with the fewest differences from this one, the latest of several, and these.

        None if there is no other.
        """
        others = ((other, differences(other, key)) for other in self.keys(key.kind) if other != key)
        return min(others, key=lambda found: len(found[1]), default=None)

    def _path(self, key: Key) -> Path:
        return self._layout.folder("entries") / key.kind / f"{key.digest}.json"


def _latest_first(path: Path) -> tuple[int, str]:
    try:
        return -path.stat().st_mtime_ns, path.name
    except OSError:  # removed a moment ago
        return 0, path.name


def parse_entry(data: bytes, digest: str) -> tuple[Key, JSON, tuple[BlobRef, ...]]:
    """Key, value and blobs of an entry.

    Raises:
        ValueError: Damaged, or its factors don't give this digest.
    """
    match records.decode(data):
        case {"kind": str(kind), "factors": dict(factors), "value": value, "blobs": list(refs)}:
            try:
                key = Key(kind, tuple(Factor(name, item) for name, item in factors.items()))
                blobs = tuple(BlobRef.parse(ref) for ref in refs)
            except BadName as error:
                raise ValueError(error.message) from None
            if key.digest != digest:
                raise ValueError("its factors are those of another key")
            return key, value, blobs
    raise ValueError("it has other fields than an entry")
