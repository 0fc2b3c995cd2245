"""Bundles between a store and a remote.

A push sends the blobs that the remote lacks, then the manifest, and moves the pointer last, so that a reader
sees the old bundle or the new one. A pull receives the blobs that the store lacks or finds damaged, each
verified before it is visible. Either can be stopped at any point; the next one goes on with what is missing.

Example:
    >>> import tempfile
    >>> from ltx_cache.folder_remote import FolderRemote
    >>> a, b = (Store(Path(tempfile.mkdtemp())) for _ in range(2))
    >>> remote = FolderRemote(Path(tempfile.mkdtemp()))
    >>> a.set_ref("tiny", a.put_bytes(b"manifest"))
    >>> push(a, a.ref("tiny"), remote, "tiny", lambda manifest: ()).blobs
    1
    >>> pull(b, remote, "tiny", lambda manifest: ()).manifest == a.ref("tiny")
    True
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ltx_cache.blobref import BlobRef
from ltx_cache.census import Reach
from ltx_cache.errors import CorruptBlob, MissingBlob, RemoteFailed, UnknownBundle
from ltx_cache.remote import Remote
from ltx_cache.store import Store

MANIFEST_LIMIT = 64 << 20
Progress = Callable[[int, int], None]
"""Told the bytes done and the bytes in all."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a push or pull did.

    Attributes:
        manifest: The bundle.
        blobs: Number of blobs that travelled, the manifest among them.
        size: Their bytes, without those that an earlier try had brought.
        total: Bytes of the bundle.
    """

    manifest: BlobRef
    blobs: int
    size: int
    total: int


def push(
    store: Store,
    manifest: BlobRef,
    remote: Remote,
    name: str,
    reach: Reach,
    extra: Iterable[bytes] = (),
    progress: Progress | None = None,
) -> Transfer:
    """Send a bundle and let the remote's pointer name it.

    Args:
        store: Has the bundle.
        manifest: The bundle.
        remote: Where it goes.
        name: Of the pointer.
        reach: Reads manifests.
        extra: Small blobs to send along, which the manifest doesn't name.
        progress: Told the bytes sent after each blob.

    Raises:
        LtxError: A blob is missing or damaged, or the remote can't be used.
    """
    refs = list(dict.fromkeys(reach(store.open(manifest).read_bytes())))
    more = {BlobRef.of(data): data for data in extra}
    there = remote.has([*refs, *more, manifest])
    sources: list[tuple[BlobRef, Path | bytes]] = list(more.items())
    sources += [(ref, store.open(ref)) for ref in refs if ref.sha256 not in there]
    sources = [(ref, source) for ref, source in sources if ref.sha256 not in there]
    if manifest.sha256 not in there:
        sources.append((manifest, store.open(manifest)))
    size, done = sum(ref.size for ref, _ in sources), 0
    for ref, source in sources:
        remote.put(ref, source)
        done += ref.size
        if progress is not None:
            progress(done, size)
    remote.move(name, manifest)
    return Transfer(manifest, len(sources), size, sum(ref.size for ref in refs) + manifest.size)


def pull(store: Store, remote: Remote, name: str, reach: Reach, progress: Progress | None = None) -> Transfer:
    """Receive a bundle; giving it a name in the store is left to the caller.

    Args:
        store: Where it goes.
        remote: Has it.
        name: Of the pointer.
        reach: Reads manifests.
        progress: Told the bytes received, piece by piece.

    Raises:
        UnknownBundle: The remote has no such pointer.
        WrongBytes: It sent other bytes than it should; they were thrown away.
        LtxError: The remote or the store can't be used.
    """
    manifest = remote.read(name)
    if manifest is None:
        names = ", ".join(remote.names()) or "none"
        raise UnknownBundle(f"{remote.url} has no bundle {name}", hint=f"it has: {names}")
    if manifest.size > MANIFEST_LIMIT:
        raise RemoteFailed(f"the manifest of {name} has {manifest.size} bytes, more than {MANIFEST_LIMIT}")
    first = fetch(store, remote, [manifest])
    refs = list(dict.fromkeys(reach(store.open(manifest).read_bytes())))
    rest = fetch(store, remote, refs, progress)
    total = sum(ref.size for ref in refs) + manifest.size
    return Transfer(manifest, first[0] + rest[0], first[1] + rest[1], total)


def fetch(
    store: Store, remote: Remote, refs: Sequence[BlobRef], progress: Progress | None = None
) -> tuple[int, int]:
    """Receive those blobs that the store lacks; goes on with what an earlier try has left.

    Returns:
        Number of blobs that travelled, and bytes.

    Raises:
        WrongBytes: The remote sent other bytes; they were thrown away.
        LtxError: The remote or the store can't be used.
    """
    missing = [ref for ref in refs if not _is_sound(store, ref)]
    total, before, travelled = sum(ref.size for ref in missing), 0, 0
    for ref in missing:
        with store.lock(f"receive-{ref.sha256}"):
            if not store.has(ref):  # else another process has received it meanwhile
                for count, arrived in _receive(store, remote, ref):
                    travelled += count
                    if progress is not None:
                        progress(before + arrived, total)
        before += ref.size
    return len(missing), travelled


def _receive(store: Store, remote: Remote, ref: BlobRef) -> Iterator[tuple[int, int]]:
    """Receive one blob; gives the bytes of each piece, and those that are there now."""
    with store.receive(ref) as part:
        if part.offset < ref.size:
            for piece in remote.get(ref, part.offset):
                part.write(piece)
                yield len(piece), part.offset
                if part.offset > ref.size:
                    break  # it is wrong already, and may have no end
        arrived = part.offset
    if arrived < ref.size:
        raise RemoteFailed(
            f"{remote.url} sent {arrived} of the {ref.size} bytes of blob {ref.sha256}",
            hint="run this again: it goes on from there",
        )


def _is_sound(store: Store, ref: BlobRef) -> bool:
    """Whether the store has the blob; one that is damaged is set aside, so that it comes anew."""
    try:
        store.open(ref)
    except (MissingBlob, CorruptBlob):
        return False
    return True
