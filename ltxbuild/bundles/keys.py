"""The factors behind the keys that a manifest names; they travel along, to explain misses elsewhere."""

from __future__ import annotations

from ltx_cache.store import Store
from ltx_run.contents import parsed


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
