"""Checking a whole store: every blob is hashed, every entry and ref read.

A damaged blob is moved to `quarantine/`, as on any read. What names it is reported too: an entry that names a
missing blob is a miss, and a bundle that does can't run. A repair removes the records that are of no use, so
that the next build makes them again; a ref that is sound stays, whatever its manifest lacks.

Example:
    >>> import tempfile
    >>> from ltx_cache.key import Factor, Key
    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> ref = store.put_bytes(b"code")
    >>> store.put_entry(Key("program", (Factor("n", 1),)), None, [ref])
    >>> verify(store, lambda manifest: ()).problems
    ()
    >>> path = store.open(ref)
    >>> path.chmod(0o644)
    >>> _ = path.write_bytes(b"cope")
    >>> [problem.what for problem in verify(store, lambda manifest: (), repair=True).problems]
    ['blob', 'entry']
    >>> verify(store, lambda manifest: ()).problems
    ()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ltx_cache.blobref import BlobRef
from ltx_cache.census import Reach
from ltx_cache.entries import parse_entry
from ltx_cache.errors import BadEntry, BadName, CorruptBlob, LtxError, MissingBlob
from ltx_cache.files import reading, sync_folder, writing
from ltx_cache.layout import Layout
from ltx_cache.store import Ref, Store

Progress = Callable[[int], None]
Part = Callable[[Ref], Reach | None]
"""What a ref stands for if the cache is meant to have a part of its bundle only; None for all of it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong.

    Attributes:
        what: `blob`, `entry` or `ref`.
        name: Digest of the blob, kind and digest of the entry, name of the ref.
        reason: What is wrong with it.
        removed: Whether it is gone now: a damaged blob set aside, a useless record removed.
    """

    what: str
    name: str
    reason: str
    removed: bool


@dataclass(frozen=True, slots=True)
class Verified:
    """What was looked at and found.

    Attributes:
        blobs: Number of blobs hashed.
        size: Their bytes.
        records: Number of entries and refs read.
        problems: Empty if all is well.
    """

    blobs: int
    size: int
    records: int
    problems: tuple[Problem, ...]


def verify(
    store: Store,
    reach: Reach,
    *,
    part: Part = lambda ref: None,
    repair: bool = False,
    progress: Progress | None = None,
) -> Verified:
    """Check everything in a store.

    Args:
        store: The store.
        reach: Reads manifests.
        part: Reads manifests of bundles that are here in part.
        repair: Remove damaged records, and entries that name missing blobs.
        progress: Told the number of bytes after each blob.

    Raises:
        LtxError: A file can't be read, or a broken record not removed.
    """
    blobs = list(_blob_files(store.root))
    checker = _Checker(store, repair)
    problems = [problem for path, ref in blobs for problem in checker.blob(path, ref, progress)]
    problems += [*checker.entries(), *checker.refs(reach, part)]
    return Verified(len(blobs), sum(ref.size for _, ref in blobs if ref), checker.count, tuple(problems))


def verify_ref(
    store: Store,
    name: str,
    reach: Reach,
    progress: Progress | None = None,
    part: Part = lambda ref: None,
) -> Verified:
    """Check one ref, its manifest and all that the manifest names.

    Raises:
        LtxError: The ref is unknown or damaged, or a file can't be read.
    """
    ref = store.ref_with_summary(name)
    manifest = ref.manifest
    refs, problems = [manifest], list(_check(store, manifest, progress))
    if not problems:
        data = store.open(manifest).read_bytes()
        refs += dict.fromkeys((part(ref) or reach)(data))
        problems = [problem for ref in refs[1:] for problem in _check(store, ref, progress)]
    return Verified(len(refs), sum(ref.size for ref in refs), 1, tuple(problems))


def _blob_files(root: Path) -> Iterator[tuple[Path, BlobRef | None]]:
    """Every file among the blobs, with its reference; None for one that lies under a wrong name."""
    for path in sorted((root / "blobs").glob("*/*")):
        try:
            ref = BlobRef(path.name, path.lstat().st_size)
        except FileNotFoundError:  # removed a moment ago
            continue
        except BadName:
            yield path, None
            continue
        yield path, ref if path.parent.name == path.name[:2] and not path.is_symlink() else None


def _check(store: Store, ref: BlobRef, progress: Progress | None) -> Iterator[Problem]:
    """Hash one blob."""
    try:
        store.open(ref, paranoid=True)
    except CorruptBlob as error:
        found = f"its bytes are those of {error.actual}"
        yield Problem("blob", ref.sha256, found, error.path is not None)
    except MissingBlob:
        yield Problem("blob", ref.sha256, "it is missing", False)
    except BadEntry as error:
        yield Problem("blob", ref.sha256, error.reason, False)
    if progress is not None:
        progress(ref.size)


class _Checker:
    """Looks at all files of a store; what is of no use is removed on repair."""

    def __init__(self, store: Store, repair: bool) -> None:
        self._store = store
        self._layout = Layout(store.root)
        self._repair = repair
        self.count = 0

    def blob(self, path: Path, ref: BlobRef | None, progress: Progress | None) -> Iterator[Problem]:
        """A damaged blob, or a file that is none."""
        if ref is not None:
            yield from _check(self._store, ref, progress)
            return
        if self._repair:
            with writing(path):
                path.replace(self._layout.writable_folder("quarantine") / path.name)
        yield Problem("blob", f"{path.parent.name}/{path.name}", "it is no blob of this store", self._repair)

    def entries(self) -> Iterator[Problem]:
        """Damaged entries, and entries that name missing blobs."""
        for path in sorted(self._layout.folder("entries").glob("*/*.json")):
            self.count += 1
            reason = self._fault(path)
            if reason:
                yield Problem("entry", f"{path.parent.name}/{path.stem}", reason, self._remove(path))

    def _fault(self, path: Path) -> str | None:
        with reading(path):
            data = path.read_bytes()
        try:
            key, _, blobs = parse_entry(data, path.stem)
        except ValueError as error:
            return str(error)
        if key.kind != path.parent.name:
            return f"it is of kind {key.kind}"
        missing = [ref.sha256 for ref in blobs if not self._store.has(ref)]
        return f"it names blobs that are missing: {', '.join(missing)}" if missing else None

    def refs(self, reach: Reach, part: Part) -> Iterator[Problem]:
        """Damaged refs, and refs to manifests that are missing, unreadable or name missing blobs."""
        for path in sorted(self._layout.folder("refs").glob("*.json")):
            self.count += 1
            try:
                ref = self._store.ref_with_summary(path.stem)
            except (BadEntry, BadName) as error:
                yield Problem("ref", path.stem, error.message, self._remove(path))
                continue
            reason = self._lack(ref.manifest, part(ref) or reach)
            if reason:
                yield Problem("ref", path.stem, reason, removed=False)

    def _lack(self, manifest: BlobRef, reach: Reach) -> str | None:
        try:
            named = list(reach(self._store.open(manifest).read_bytes()))
        except LtxError as error:
            return error.message
        missing = sorted({ref.sha256 for ref in named if not self._store.has(ref)})
        return f"its bundle lacks blobs: {', '.join(missing)}" if missing else None

    def _remove(self, path: Path) -> bool:
        if self._repair:
            with writing(path):
                path.unlink(missing_ok=True)
                sync_folder(path.parent)
        return self._repair
