"""What is in a store and what reaches it: refs reach manifests, manifests reach blobs, entries name blobs.

Example:
    >>> import tempfile
    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> code = store.put_bytes(b"code")
    >>> store.set_ref("bundle", store.put_bytes(b"manifest"))
    >>> found = census(store, lambda manifest: [code])
    >>> sorted(found.blobs.values()), len(found.refs["bundle"])
    ([4, 8], 2)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ltx_cache.blobref import BlobRef
from ltx_cache.entries import parse_entry
from ltx_cache.errors import BundleUnreadable, LtxError
from ltx_cache.files import reading
from ltx_cache.store import Ref, Store

Reach = Callable[[bytes], Iterable[BlobRef]]
"""The blobs that a manifest names; raises `LtxError` for one that can't be read."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry.

    Attributes:
        path: Its file.
        time: When it was written, in seconds.
        blobs: Digests that it names; None if it is damaged.
    """

    path: Path
    time: float
    blobs: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Census:
    """All that counts in a store.

    Attributes:
        blobs: Size of each blob that is there, by digest.
        refs: Digests that each ref reaches, its manifest among them.
        entries: All entries, latest first.
    """

    blobs: Mapping[str, int]
    refs: Mapping[str, frozenset[str]]
    entries: tuple[Stored, ...]

    @property
    def reached(self) -> frozenset[str]:
        """Digests that any ref reaches."""
        return frozenset().union(*self.refs.values())

    def size(self, digests: Iterable[str]) -> int:
        """Bytes of those blobs that are there."""
        return sum(self.blobs.get(digest, 0) for digest in digests)


def census(store: Store, reach: Reach) -> Census:
    """Count a store.

    Raises:
        BundleUnreadable: The manifest of a ref is missing or can't be read.
        LtxError: A ref is damaged, or a file can't be read.
    """
    blobs = {path.name: size for path, size in blob_files(store)}
    refs = {ref.name: _reached(store, ref, reach) for ref in store.refs()}
    entries = sorted(_entries(store.root), key=lambda entry: (-entry.time, entry.path))
    return Census(blobs, refs, tuple(entries))


def blob_files(store: Store) -> Iterator[tuple[Path, int]]:
    """Files among the blobs with their sizes."""
    for path in (store.root / "blobs").glob("*/*"):
        with reading(path):
            try:
                yield path, path.lstat().st_size
            except FileNotFoundError:
                continue


def _reached(store: Store, ref: Ref, reach: Reach) -> frozenset[str]:
    try:
        named = reach(store.open(ref.manifest).read_bytes())
        return frozenset({ref.manifest.sha256, *(blob.sha256 for blob in named)})
    except LtxError as error:
        raise BundleUnreadable(
            f"what bundle {ref.name} needs can't be told: {error.message}",
            hint=f"build or pull it again, or forget it: ltxbuild rm {ref.name}",
        ) from None


def _entries(root: Path) -> Iterator[Stored]:
    for path in (root / "entries").glob("*/*.json"):
        with reading(path):
            try:
                time, data = path.stat().st_mtime, path.read_bytes()
            except FileNotFoundError:
                continue
        try:
            _, _, blobs = parse_entry(data, path.stem)
        except ValueError:
            yield Stored(path, time, None)
        else:
            yield Stored(path, time, frozenset(ref.sha256 for ref in blobs))
