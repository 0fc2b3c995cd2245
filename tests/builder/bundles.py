"""Small bundles for tests that never run them."""

from __future__ import annotations

from collections.abc import Mapping

from ltx_cache.blobref import BlobRef
from ltx_cache.key import Factor, Key
from ltx_cache.store import Store
from ltx_run import bundle as manifest

KEY = Key("program", (Factor("program", "vocoder"), Factor("height", 128)))
WEIGHTS_KEY = Key("weights", (Factor("component", "vocoder"), Factor("files", {"model": "a" * 64})))


def fake_bundle(
    store: Store,
    name: str = "fake",
    *,
    programs: Mapping[str, Key] | None = None,
    code: bytes = b"executable",
    tensors: tuple[bytes, ...] = (b"rank 0", b"rank 1"),
    platform: str = "cpu",
) -> manifest.Bundle:
    """A bundle of well-formed records whose blobs and entries are in the store."""
    executable, ranks = store.put_bytes(code), [store.put_bytes(data) for data in tensors]
    shared = store.put_bytes(b"shared")
    tokenizer = store.put_bytes(b"tokenizer")
    keys = programs or {"vocoder.69": KEY}
    made = {key: _program(executable, key, platform) for key in keys.values()}
    weights = manifest.WeightSet(shared=_blob(shared), ranks=tuple(map(_blob, ranks)), key=WEIGHTS_KEY.digest)
    return manifest.Bundle(
        name=name,
        recipe={"name": name},
        variants={"default": manifest.Variant(height=128, width=192, frames=17, fps=24.0, plan=())},
        programs={label: made[key] for label, key in keys.items()},
        weights={"vocoder": weights},
        tokenizer=_blob(tokenizer),
        provenance={},
    )


def publish(store: Store, bundle: manifest.Bundle) -> BlobRef:
    """Store the manifest and the bundle's entries, and name it."""
    import msgspec

    for kind, key in (("program", KEY), ("weights", WEIGHTS_KEY)):
        records = bundle.programs if kind == "program" else bundle.weights
        for record in records.values():
            if record.key == key.digest:
                store.put_entry(key, msgspec.to_builtins(record), blobs_of(record))
    blob = store.put_bytes(manifest.encode(bundle))
    store.set_ref(bundle.name, blob)
    return blob


def blobs_of(record: manifest.Program | manifest.WeightSet) -> list[BlobRef]:
    """The blobs that a record names."""
    if isinstance(record, manifest.Program):
        named = [record.executable]
    else:
        named = [*record.ranks, *([record.shared] if record.shared else [])]
    return [BlobRef(blob.sha256, blob.size) for blob in named]


def _program(executable: BlobRef, key: Key, platform: str) -> manifest.Program:
    return manifest.Program(
        executable=_blob(executable),
        fingerprint=manifest.Fingerprint(platform=platform, runtime="jaxlib 0", features=(), devices=1),
        inputs=(),
        outputs=(),
        mesh=(),
        weights="vocoder",
        key=key.digest,
        memory=manifest.Memory(arguments=1, outputs=1, temp=1, code=1),
        flops=1.0,
    )


def _blob(ref: BlobRef) -> manifest.Blob:
    return manifest.Blob(sha256=ref.sha256, size=ref.size)
