"""Finding a bundle and its blobs: a name in the cache, or a directory of `bundle.json` and `blobs/<sha256>`.

No path comes from a manifest: a blob is found by its digest, and handed out only after its bytes were
compared with that digest, so nothing is parsed or executed that the manifest doesn't vouch for.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from ltx_cache.address import is_address
from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadName, UnknownRef
from ltx_cache.files import reading
from ltx_cache.hashing import hash_file
from ltx_cache.home import home
from ltx_cache.names import checked_name
from ltx_cache.store import Ref, Store
from ltx_run.acquire import origin
from ltx_run.bundle import Blob, Bundle, decode
from ltx_run.console import say
from ltx_run.contents import UNREADABLE
from ltx_run.errors import BundleInvalid, BundleNotFound

MANIFEST = "bundle.json"
MANIFEST_DIGEST = "bundle.json.sha256"
"""Beside the manifest, in the form of the command `sha256sum`."""
REBUILD = "build it again (ltxbuild compile RECIPE), or fetch it again from where it came from"


class Blobs(Protocol):
    """Where blobs come from."""

    def has(self, ref: BlobRef) -> bool:
        """Whether a blob of that name and size is there; its bytes are not looked at."""

    def open(self, ref: BlobRef) -> Path:
        """Path of a blob whose bytes were verified."""


class DirectoryBlobs:
    """Blobs in a directory; each is hashed at its first use by this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._verified: set[str] = set()

    def has(self, ref: BlobRef) -> bool:
        """Whether a blob of that name and size is there; its bytes are not looked at."""
        path = self._folder / ref.sha256
        return path.is_file() and path.stat().st_size == ref.size

    def open(self, ref: BlobRef) -> Path:
        """Path of a blob whose bytes were verified.

        Raises:
            BundleInvalid: The bytes are not what the name says.
            FileNotReadable: The file can't be read.
        """
        path = self._folder / ref.sha256
        if ref.sha256 not in self._verified:
            with reading(path), path.open("rb", buffering=0) as file:
                found = hash_file(file)
            if found != ref.sha256:
                raise BundleInvalid(f"{path} is damaged: its sha256 is {found}", hint=REBUILD)
            self._verified.add(ref.sha256)
        return path


class OpenBundle:
    """A bundle whose manifest was read and verified.

    Attributes:
        manifest: The manifest.
        digest: sha256 of the manifest.
        where: What the user named, for messages.
    """

    def __init__(
        self, manifest: Bundle, digest: str, where: str, blobs: Blobs, advice: str = REBUILD
    ) -> None:
        self.manifest = manifest
        self.digest = digest
        self.where = where
        self._blobs = blobs
        self._advice = advice

    def path(self, blob: Blob) -> Path:
        """Path of a verified blob.

        Raises:
            LtxError: It is missing or damaged.
        """
        return self._blobs.open(_ref(blob))

    def require(self, blobs: Iterable[tuple[str, Blob]]) -> None:
        """Check that files are there, without reading them.

        Args:
            blobs: What each is for, and the blob.

        Raises:
            BundleInvalid: Lists those that are missing.
        """
        missing = [f"{what} ({blob.sha256[:12]})" for what, blob in blobs if not self._blobs.has(_ref(blob))]
        if missing:
            raise BundleInvalid(f"bundle {self.where} lacks {', '.join(missing)}", hint=self._advice)


def _ref(blob: Blob) -> BlobRef:
    return BlobRef(blob.sha256, blob.size)


class _StoreBlobs:
    """Blobs in the cache."""

    def __init__(self, store: Store, paranoid: bool) -> None:
        self._store = store
        self._paranoid = paranoid

    def has(self, ref: BlobRef) -> bool:
        return self._store.has(ref)

    def open(self, ref: BlobRef) -> Path:
        return self._store.open(ref, paranoid=self._paranoid)


def in_use(name: str) -> AbstractContextManager[None]:
    """Keep the cache from being collected while a bundle of it is used.

    Args:
        name: Name, address or directory; a directory needs nothing kept.

    Raises:
        LtxError: The cache can't be read.
    """
    if not is_address(name) and _is_directory(name):
        return nullcontext()
    return Store(home()).in_use(
        create=is_address(name), on_wait=lambda: say("waiting for the end of ltxbuild gc")
    )


def find(name: str, *, paranoid: bool = False, where: str | None = None) -> OpenBundle:
    """The bundle of that name, or in that directory.

    A name of the cache goes before a directory, so that nothing in the working folder takes the place of what
    is meant; a path, such as `./NAME`, is always one of a directory.

    Args:
        name: Name or directory.
        paranoid: Hash what the cache holds at every use, even if it was hashed before.
        where: What the user named it, for messages; None if that is the name.

    Raises:
        BundleNotFound: There is none; lists similar names.
        BundleInvalid: Its manifest is damaged or of another version.
        LtxError: The cache can't be read.
    """
    folder = Path(name)
    if _is_directory(name):
        data = _checked(folder)
        return OpenBundle(
            _decoded(data, name), BlobRef.of(data).sha256, name, DirectoryBlobs(folder / "blobs")
        )
    store = Store(home())
    try:
        ref = store.ref_with_summary(name)
    except UnknownRef as error:
        advice = f"did you mean {' or '.join(error.nearest)}?" if error.nearest else "ltxbuild compile RECIPE"
        raise BundleNotFound(f"no bundle {name} in the cache at {store.root}", hint=advice) from None
    except BadName:
        reason = f"it holds no {MANIFEST}" if folder.is_dir() else "there is no such directory"
        raise BundleNotFound(f"no bundle at {name}: {reason}", hint="ltxbuild list shows names") from None
    blobs = _StoreBlobs(store, paranoid)
    data = blobs.open(ref.manifest).read_bytes()
    shown, digest = where or name, ref.manifest.sha256
    return OpenBundle(_decoded(data, shown), digest, shown, blobs, _advice(ref))


def _is_directory(name: str) -> bool:
    """Whether a bundle in a directory is meant."""
    if not (Path(name) / MANIFEST).is_file():
        return False
    try:
        checked_name("ref", name)  # no path is a name, and needs no cache
        Store(home()).ref(name)
    except (BadName, UnknownRef):
        return True
    return False


def _advice(ref: Ref) -> str:
    """What to do about files that are not there."""
    known = origin(ref)
    if known is None or known.variants is None:
        return REBUILD
    here = ", ".join(known.variants)
    return f"of it the cache has {here}: ltxbuild pull '{known.source}' --as {ref.name} --variant NAME"


def _checked(folder: Path) -> bytes:
    """The manifest in a directory, compared with its digest if that lies beside it."""
    with reading(folder / MANIFEST):
        data = (folder / MANIFEST).read_bytes()
    digest = folder / MANIFEST_DIGEST
    if digest.exists() and digest.read_bytes() != digest_line(data):
        raise BundleInvalid(
            f"{folder / MANIFEST} is damaged: it doesn't match {MANIFEST_DIGEST}", hint=REBUILD
        )
    return data


def digest_line(data: bytes) -> bytes:
    """What stands beside a manifest with these bytes."""
    return f"{BlobRef.of(data).sha256}  {MANIFEST}\n".encode()


def _decoded(data: bytes, where: str) -> Bundle:
    try:
        return decode(data)
    except UNREADABLE as error:
        raise BundleInvalid(f"manifest of {where}: {error}", hint=REBUILD) from None
