"""Remotes: places elsewhere that hold blobs under their digest, and pointers that name manifests.

    blobs/<digest>        bytes under their sha256, manifests among them
    bundles/<name>.json   pointers: records that name a manifest

Every remote has this form, whether it is a folder or a repository on a hub, so one can be copied to another
file by file. A pointer moves in one step, after all that it leads to is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from ltx_cache import records
from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadEntry, BadName


class Remote(Protocol):
    """What a place elsewhere can do.

    Every method raises `LtxError` if the remote can't be used.
    """

    @property
    def url(self) -> str:
        """Its address, for messages."""

    def has(self, refs: Iterable[BlobRef]) -> set[str]:
        """Digests of those blobs that it has, as far as can be told without reading them."""

    def put(self, ref: BlobRef, source: Path | bytes) -> None:
        """Store a blob: the content of a file, or the bytes; visible after `move` at the latest."""

    def get(self, ref: BlobRef, offset: int) -> Iterator[bytes]:
        """The bytes of a blob from an offset on; the caller compares them with the digest."""

    def names(self) -> list[str]:
        """Names of all bundles."""

    def read(self, name: str) -> BlobRef | None:
        """The manifest that a pointer names; None if there is no such pointer."""

    def move(self, name: str, manifest: BlobRef) -> None:
        """Let a pointer name a manifest, in one step, after everything that was put."""


def encode_pointer(manifest: BlobRef) -> bytes:
    """The content of a pointer."""
    return records.encode({"manifest": manifest.json()})


def decode_pointer(where: str, data: bytes) -> BlobRef:
    """The manifest that a pointer names.

    Raises:
        BadEntry: It is damaged.
    """
    try:
        match records.decode(data):
            case {"manifest": manifest, **rest} if not rest:
                return BlobRef.parse(manifest)
    except (ValueError, BadName) as error:
        raise BadEntry(where, str(error)) from None
    raise BadEntry(where, "it has other fields than a pointer")
