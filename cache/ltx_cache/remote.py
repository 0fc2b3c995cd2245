"""Remotes: places elsewhere that hold blobs under their digest, and pointers that name manifests.

    blobs/<digest>                  bytes under their sha256, manifests among them
    signatures/<manifest>/<key>     signature of a manifest's bytes by the key of that id
    bundles/<name>.json             pointers: records that name a manifest
    README.md                       what is there, for people

Every remote has this form, whether it is a folder or a repository on a hub, so one can be copied to another
file by file. A pointer moves in one step, after all that it leads to is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ltx_cache import records
from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadEntry, BadName, MissingBlob, RemoteFailed
from ltx_cache.names import checked_digest, checked_name

CARD = "README.md"
SIGNATURE_LIMIT = 1 << 20
POINTER_LIMIT = 1 << 16
CARD_LIMIT = 1 << 20
MANIFEST_LIMIT = 64 << 20
"""Bytes that are read into memory at most, whatever a remote says or sends."""

Source = Path | bytes
"""Where the bytes of a blob are: a file, or here."""
Card = Callable[[str | None, Mapping[str, bytes]], str]
"""Makes a remote's README from the one that is there, if any, and the manifests of its bundles by name."""


class TooLarge(RemoteFailed):
    """A file at a remote that is read into memory is larger than any of its kind.

    Attributes:
        reason: How large.
    """

    def __init__(self, where: str, limit: int, /) -> None:
        self.reason = f"it has more than {limit} bytes"
        super().__init__(f"{where}: {self.reason}", hint="shorten or remove it there")


@dataclass(frozen=True)
class Publication:
    """What a pointer's move makes visible.

    Attributes:
        name: The pointer.
        data: Bytes of the manifest that it shall name; they were put.
        signatures: Of the manifest, by the id of the key.
        card: Makes the README; None leaves it as it is.
    """

    name: str
    data: bytes
    signatures: Mapping[str, bytes] = field(default_factory=dict)
    card: Card | None = None

    @property
    def manifest(self) -> BlobRef:
        """The manifest."""
        return BlobRef.of(self.data)


class Remote(Protocol):
    """What a place elsewhere can do.

    Every method raises `LtxError` if the remote can't be used. Those that read are safe to use from several
    threads.
    """

    @property
    def url(self) -> str:
        """Its address, without the name of a bundle."""

    @property
    def fixed(self) -> bool:
        """Whether what it has can never change, so that it need not be asked again."""

    @property
    def connections(self) -> int:
        """How many blobs to read at the same time."""

    def state(self) -> str | None:
        """What identifies its present state, e.g. a commit; None if nothing does."""

    def create(self, *, private: bool) -> None:
        """Make the place if it isn't there; a private one is not for everyone to read."""

    def sizes(self, digests: Iterable[str]) -> dict[str, int]:
        """Sizes of those blobs that it has, as far as can be told without reading them."""

    def put(self, blobs: Sequence[tuple[BlobRef, Source]], sent: Callable[[int], None]) -> None:
        """Store blobs, visible after `move` at the latest; `sent` is told bytes as they are done."""

    def get(self, digest: str, offset: int) -> Iterator[bytes]:
        """The bytes of a blob from an offset on; the caller compares them with the digest.

        An empty piece says that it waits before it tries again: whoever has lost patience can leave then.
        """

    def names(self) -> list[str]:
        """Names of all bundles."""

    def read(self, name: str) -> BlobRef | None:
        """The manifest that a pointer names; None if there is no such pointer."""

    def signers(self, manifest: str) -> list[str]:
        """Ids of the keys that signed a manifest."""

    def signature(self, manifest: str, key: str) -> bytes | None:
        """The signature of a manifest by a key; None if there is none."""

    def move(self, publication: Publication) -> None:
        """Let a pointer name a manifest, in one step, after everything that was put."""


def blob_path(digest: str) -> str:
    """Where a blob is in a remote."""
    return f"blobs/{checked_digest(digest)}"


def bundle_names(files: Iterable[str]) -> list[str]:
    """Names of the bundles that have a pointer among files; other files there are nobody's business."""
    names = (file.removesuffix(".json") for file in files if file.endswith(".json"))
    return sorted(name for name in names if _is_name(name))


def _is_name(text: str) -> bool:
    with suppress(BadName):
        return checked_name("bundle name", text) == text
    return False


def pointer_path(name: str) -> str:
    """Where a pointer is in a remote."""
    return f"bundles/{checked_name('bundle name', name)}.json"


def signature_folder(manifest: str) -> str:
    """Where the signatures of a manifest are in a remote."""
    return f"signatures/{checked_digest(manifest)}"


def signature_path(manifest: str, key: str) -> str:
    """Where the signature of a manifest by a key is in a remote."""
    return f"{signature_folder(manifest)}/{checked_digest(key)}"


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
    except (ValueError, BadName, RecursionError) as error:
        raise BadEntry(where, str(error)) from None
    raise BadEntry(where, "it has other fields than a pointer")


def manifests(remote: Remote) -> dict[str, bytes]:
    """The manifests of all bundles by name, unverified; those that can't be had are left out."""
    found = {}
    for name in remote.names():
        with suppress(BadEntry, MissingBlob):
            pointer = remote.read(name)
            data = None if pointer is None else read_small(remote, pointer.sha256, MANIFEST_LIMIT)
            if data is not None:
                found[name] = data
    return found


def card_text(remote: Remote, data: bytes | None) -> str | None:
    """The README that is there.

    Raises:
        RemoteFailed: It is no text, so nothing can be added to it.
    """
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        raise RemoteFailed(f"{remote.url}: {CARD} is no UTF-8 text", hint="fix or remove it there") from None


def read_small(remote: Remote, digest: str, limit: int) -> bytes | None:
    """The bytes of a blob that fits into memory; None if they are others or more than `limit`.

    Raises:
        LtxError: It can't be read.
    """
    data = bytearray()
    for piece in remote.get(digest, 0):
        data += piece
        if len(data) > limit:
            return None
    return bytes(data) if BlobRef.of(bytes(data)).sha256 == digest else None


def checked_manifest(remote: Remote, what: str, manifest: BlobRef) -> BlobRef:
    """The manifest itself, if it isn't too large to be one.

    Raises:
        RemoteFailed: It is.
    """
    if manifest.size > MANIFEST_LIMIT:
        raise RemoteFailed(
            f"the manifest of {what} at {remote.url} has {manifest.size} bytes, more than {MANIFEST_LIMIT}"
        )
    return manifest
