"""Where the bytes of a store are."""

from __future__ import annotations

from pathlib import Path

import collecting
from collecting import BUNDLE, reach

from ltx_cache.blobref import BlobRef
from ltx_cache.canonical import canonical
from ltx_cache.store import Store
from ltx_cache.usage import usage


def files(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def test_every_byte_is_counted_once(store: Store) -> None:
    """The parts add up to what the file system says, and shared bytes are in one of them."""
    collecting.prepare(store)
    shared, own = BlobRef.of(BUNDLE[1]), store.put_bytes(b"own")
    manifest = store.put_bytes(canonical([shared.json(), own.json()]))
    store.set_ref("other", manifest)
    found = usage(store, reach)
    first, second = found.refs
    assert (first.name, second.name) == ("bundle", "other")
    assert found.shared == shared.size
    assert (second.size, second.own) == (shared.size + 3 + manifest.size, 3 + manifest.size)
    assert first.own == len(BUNDLE[0]) + store.ref("bundle").size
    assert found.unused == len(b"".join(collecting.UNUSED))
    assert found.loose == len(b"loose")
    assert found.total == files(store.root)
    assert found.total == first.own + second.own + found.shared + found.unused + found.loose + found.rest


def test_a_store_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    """Nothing is made by looking."""
    assert usage(Store(tmp_path / "none"), reach).total == 0
    assert not (tmp_path / "none").exists()
