"""The content-addressed store.

What it promises, what it does not, and the tests of each promise are in docs/cache.md. In short: what is
visible is complete, verified and durable; a key hits only if all of its result is there; failed work leaves
nothing that looks like a result; nothing that is used is collected; nothing that is read is executed.

Example:
    >>> import tempfile
    >>> from ltx_cache.key import Factor
    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> key = Key("program", (Factor("jaxlib", "0.10.2"), Factor("height", 512)))
    >>> store.lookup(key)
    Miss(reason='no entry has this key', missing=())
    >>> with store.writer() as w:
    ...     _ = w.write(b"code, "), w.write(b"more code")
    ...     code = w.commit()
    >>> store.put_entry(key, {"flops": 12}, [code])
    >>> match store.lookup(key):
    ...     case Hit(value, (blob,)):
    ...         print(value, store.open(blob).read_text())
    {'flops': 12} code, more code

Stability: all of `Store` is public. A store is readable by every version with the same layout number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ltx_cache.blobref import BlobRef
from ltx_cache.blobs import Blobs
from ltx_cache.canonical import JSON
from ltx_cache.digests import FileDigests, Progress
from ltx_cache.entries import NO_ENTRY, Entries, Hit, Lookup, Miss
from ltx_cache.key import Difference, Key
from ltx_cache.layout import Layout
from ltx_cache.leases import Leases
from ltx_cache.locks import Locks
from ltx_cache.names import checked_name
from ltx_cache.partial import Partial
from ltx_cache.refs import Ref, Refs
from ltx_cache.stamps import Stamps
from ltx_cache.writer import BlobWriter, Data

__all__ = ["NO_ENTRY", "BlobRef", "Hit", "Lookup", "Miss", "Ref", "Store"]


class Store:
    """A store in one folder, which is made at the first write.

    Cheap to make, safe to use from several threads, and several processes may use one folder at the same
    time.

    Attributes:
        root: The folder, absolute.

    Raises:
        UnsupportedLayout: Another version wrote the folder.
        FileNotReadable: Its version can't be read.
    """

    def __init__(self, root: Path) -> None:
        self._layout = Layout(root)
        self.root = self._layout.root
        stamps = Stamps(self._layout)
        self._blobs = Blobs(self._layout, stamps)
        self._entries = Entries(self._layout, self._blobs)
        self._refs = Refs(self._layout, self._blobs)
        self._locks = Locks(self._layout)
        self._leases = Leases(self._layout)
        self._digests = FileDigests(stamps)

    def writer(self) -> BlobWriter:
        """A writer for a blob, to be used in a `with` block; without `commit` the block leaves nothing.

        Raises (on entering the block):
            StoreNotWritable: The store can't be written.
        """
        return self._blobs.writer()

    def put_bytes(self, data: Data) -> BlobRef:
        """Store bytes as a blob.

        Raises:
            StorageFull: No space left.
            StoreNotWritable: The store can't be written.
        """
        return self._blobs.put_bytes(data)

    def put_file(self, path: Path) -> BlobRef:
        """Store a copy of a file as a blob.

        Raises:
            FileNotReadable: The file can't be read.
            FileChanged: It changed while it was read.
            StorageFull: No space left.
            StoreNotWritable: The store can't be written.
        """
        return self._blobs.put_file(path)

    def has(self, ref: BlobRef) -> bool:
        """Whether a blob of that name and size is there; its bytes are not looked at."""
        return self._blobs.has(ref)

    def open(self, ref: BlobRef, *, paranoid: bool = False) -> Path:
        """The path of a verified blob, for reading only; `paranoid` hashes it even if it has a stamp.

        Raises:
            MissingBlob: It is not there.
            CorruptBlob: Its bytes are not what its name says; it was moved to `quarantine/`.
            BadEntry: The bytes are right and the size in the reference is wrong.
            FileNotReadable: It can't be read.
        """
        return self._blobs.open(ref, paranoid=paranoid)

    def settle(self, ref: BlobRef) -> None:
        """Flush the name of a blob that somebody is about to rely on: its writer may not have come to that.

        Raises:
            MissingBlob: It is not there.
            StoreNotWritable: The store can't be written.
        """
        self._blobs.settle(ref)

    def receive(self, ref: BlobRef) -> AbstractContextManager[Partial]:
        """Receive a blob in pieces, going on with what an earlier try has left; see `ltx_cache.partial`.

        At the end of the block the blob is published if as many bytes are there as it has.

        Raises:
            WrongBytes: They are not the blob's, and were thrown away.
            StoreNotWritable: The store can't be written.
        """
        return self._blobs.receive(ref)

    def put_entry(self, key: Key, value: JSON, blobs: Sequence[BlobRef]) -> None:
        """Publish the result of a key in one step, after its blobs; replaces an earlier result.

        Raises:
            MissingBlob: A blob is not there.
            StorageFull: No space left.
            StoreNotWritable: The store can't be written.
            TypeError: The value is not JSON.
            ValueError: The value holds NaN or an infinity.
        """
        self._entries.put(key, value, blobs)

    def lookup(self, key: Key) -> Lookup:
        """The result of a key, or why there is none.

        Raises:
            FileNotReadable: The entry exists and can't be read.
        """
        return self._entries.lookup(key)

    def entries(self, kind: str) -> Iterator[Key]:
        """Keys of all sound entries of a kind, latest first, whether or not their blobs are there."""
        return self._entries.keys(kind)

    def nearest(self, key: Key) -> tuple[Key, list[Difference]] | None:
        """The other key with the fewest differences, the latest of several, and these; None without any."""
        return self._entries.nearest(key)

    def set_ref(self, name: str, manifest: BlobRef, summary: JSON = None) -> None:
        """Let a name stand for a manifest, in one step; `summary` is what a listing shows.

        Raises:
            BadName: The store doesn't take the name.
            MissingBlob: The manifest is not there.
            StorageFull: No space left.
            StoreNotWritable: The store can't be written.
        """
        self._refs.set(name, manifest, summary)

    def ref(self, name: str) -> BlobRef:
        """The manifest of that name; whether it is there is not looked at.

        Raises:
            BadName: No ref can have this name.
            UnknownRef: There is none; the message lists similar names.
            BadEntry: It is damaged.
            FileNotReadable: It can't be read.
        """
        return self._refs.get(name).manifest

    def ref_with_summary(self, name: str) -> Ref:
        """Like `ref`, with what was kept beside it."""
        return self._refs.get(name)

    def refs(self) -> list[Ref]:
        """All refs, by name; raises what `ref` does if one is damaged or can't be read."""
        return self._refs.all()

    def remove_ref(self, name: str) -> None:
        """Forget a name; what it stood for goes with the next collection, unless another name reaches it.

        Raises what `ref` does for an unknown name, and `StoreNotWritable`.
        """
        self._refs.remove(name)

    def in_use(
        self, *, create: bool = False, on_wait: Callable[[], None] | None = None
    ) -> AbstractContextManager[None]:
        """Keep the store from being collected during a block; hold it around everything that uses results.

        If there is no store, it is made if `create` is given; else there is nothing to hold. `on_wait` is
        called once if a collection runs, before the wait.
        """
        return self._leases.shared(create=create, on_wait=on_wait)

    def lock(
        self,
        name: str,
        on_wait: Callable[[], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> AbstractContextManager[bool]:
        """Hold a lock of the operating system during a block; see `ltx_cache.locks` for what it is worth.

        Args:
            name: What is locked, e.g. a kind and the digest of a key.
            on_wait: Called once if another process or thread holds it, before the wait.
            cancelled: Asked again and again during the wait: whether to give up.

        Returns:
            A context whose value is False if the file system has no locks, so that another may be at the same
            work.

        Raises (on entering the block):
            BadName: The store doesn't take the name.
            StoreNotWritable: The lock file can't be made.
            CancelledError: The wait was given up.
        """
        return self._locks.hold(name, on_wait, cancelled)

    def log_path(self, name: str) -> Path:
        """Where to write the log of some work, e.g. a compilation; it is kept whatever becomes of the work.

        Raises:
            BadName: The store doesn't take the name.
            StoreNotWritable: The folder can't be made.
        """
        checked_name("log", name)
        return self._layout.writable_folder("logs") / f"{name}.log"

    def file_digest(self, path: Path, progress: Progress | None = None) -> str:
        """The sha256 of a file outside the store, from a stamp if the file is as it was when last hashed.

        Links are followed; `progress` is told the bytes hashed so far and in all.

        Raises:
            FileNotReadable: It can't be read.
            FileChanged: It changed while it was read.
        """
        return self._digests.digest(path, progress)
