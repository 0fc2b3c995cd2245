"""The blobs that a manifest names, for everything that copies, checks or collects bundles."""

from __future__ import annotations

import msgspec

from ltx_cache.blobref import BlobRef
from ltx_cache.store import Store
from ltx_run.bundle import Bundle, blobs, decode
from ltx_run.errors import BundleInvalid


def parsed(data: bytes) -> Bundle:
    """Read a manifest.

    Raises:
        BundleInvalid: It isn't one, or is of another version.
    """
    try:
        return decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BundleInvalid(
            f"the manifest {BlobRef.of(data).sha256[:12]} can't be read: {error}",
            hint="another version of this tool may have made it: upgrade, or build the bundle again",
        ) from None


def contents(data: bytes) -> tuple[BlobRef, ...]:
    """Every blob that a manifest names, each once.

    Raises:
        BundleInvalid: It is no manifest of this version.
        BadName: A digest in it is malformed.
    """
    return tuple(BlobRef(blob.sha256, blob.size) for blob in blobs(parsed(data)))


def keys(store: Store, data: bytes) -> list[bytes]:
    """The keys that a manifest names, as far as the store has their factors.

    The sha256 of such bytes is the digest of the key, so a remote can keep them as blobs.

    Raises:
        BundleInvalid: It is no manifest of this version.
    """
    bundle = parsed(data)
    wanted = {"program": {program.key for program in bundle.programs.values()}}
    wanted["weights"] = {weights.key for weights in bundle.weights.values()}
    return [key.encoded for kind in wanted for key in store.entries(kind) if key.digest in wanted[kind]]
