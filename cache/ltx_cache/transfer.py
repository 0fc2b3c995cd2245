"""Bundles between a store and a remote.

A push sends the blobs that the remote lacks, then the manifest, and moves the pointer last, so that a reader
sees the old bundle or the new one. A pull receives the blobs that the store lacks or finds damaged, each
verified before it is visible. Either can be stopped at any point; the next one goes on with what is missing.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ltx_cache.folder_remote import FolderRemote
    >>> a, b = (Store(Path(tempfile.mkdtemp())) for _ in range(2))
    >>> remote = FolderRemote(Path(tempfile.mkdtemp()))
    >>> push(a, remote, Publication("tiny", b"manifest"), lambda manifest: ()).blobs
    1
    >>> pull(b, remote, remote.read("tiny"), lambda manifest: ()).manifest == remote.read("tiny")
    True
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ltx_cache.blobref import BlobRef
from ltx_cache.census import Reach
from ltx_cache.receive import Progress, fetch
from ltx_cache.remote import Publication, Remote, Source, checked_manifest
from ltx_cache.store import Store


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a push or pull did.

    Attributes:
        manifest: The bundle.
        blobs: Number of blobs that travelled, the manifest among them.
        size: Their bytes, without those that an earlier try had brought.
        total: Bytes of what was asked for, the whole bundle or a part.
    """

    manifest: BlobRef
    blobs: int
    size: int
    total: int


def push(
    store: Store,
    remote: Remote,
    publication: Publication,
    reach: Reach,
    extra: Iterable[bytes] = (),
    progress: Progress | None = None,
) -> Transfer:
    """Send a bundle and let the remote's pointer name it.

    Args:
        store: Has the bundle's blobs.
        remote: Where it goes.
        publication: The bundle's manifest, the pointer's name, and what goes with them.
        reach: Reads manifests.
        extra: Small blobs to send along, which the manifest doesn't name.
        progress: Told the bytes sent.

    Raises:
        LtxError: A blob is missing or damaged, or the remote can't be used.
    """
    manifest = publication.manifest
    refs = list(dict.fromkeys(reach(publication.data)))
    small = {BlobRef.of(data): data for data in extra}
    there = remote.sizes(ref.sha256 for ref in (*refs, *small, manifest))
    lacking = [ref for ref in (*refs, *small) if there.get(ref.sha256) != ref.size]
    blobs: list[tuple[BlobRef, Source]] = [(ref, small.get(ref) or store.open(ref)) for ref in lacking]
    if there.get(manifest.sha256) != manifest.size:
        blobs.append((manifest, publication.data))
    size, done = sum(ref.size for ref, _ in blobs), 0

    def sent(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, size)

    remote.put(blobs, sent)
    remote.move(publication)
    return Transfer(manifest, len(blobs), size, sum(ref.size for ref in refs) + manifest.size)


def pull(
    store: Store, remote: Remote, manifest: BlobRef, reach: Reach, progress: Progress | None = None
) -> Transfer:
    """Receive a bundle, or the part that `reach` tells; giving it a name in the store is left to the caller.

    Args:
        store: Where it goes.
        remote: Has it.
        manifest: The bundle.
        reach: Reads manifests; called once the bytes of this one were compared with their digest.
        progress: Told the bytes received, piece by piece.

    Raises:
        WrongBytes: The remote sent other bytes than it should; they were thrown away.
        LtxError: The remote or the store can't be used, or `reach` refuses the manifest.
    """
    first = fetch(store, remote, [checked_manifest(remote, manifest.sha256, manifest)])
    refs = list(dict.fromkeys(reach(store.open(manifest).read_bytes())))
    rest = fetch(store, remote, refs, progress)
    total = sum(ref.size for ref in refs) + manifest.size
    return Transfer(manifest, first[0] + rest[0], first[1] + rest[1], total)
