"""Refs: names for manifests."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltx_cache import records
from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadEntry, BadName, MissingBlob, UnknownRef
from ltx_cache.store import Ref, Store


def test_a_ref_names_a_manifest(store: Store) -> None:
    """A ref gives back its manifest, moves to another in one step, and is listed with its summary."""
    first, second = store.put_bytes(b"1"), store.put_bytes(b"2")
    store.set_ref("tiny", first, {"n": 1})
    assert store.ref("tiny") == first
    store.set_ref("tiny", second, {"n": 2})
    store.set_ref("a.b-c_9", first)
    assert store.refs() == [Ref("a.b-c_9", first, None), Ref("tiny", second, {"n": 2})]


def test_an_unknown_ref_lists_the_nearest(store: Store) -> None:
    """The error lists similar names, else some that exist, and looking creates nothing."""
    with pytest.raises(UnknownRef, match="no refs yet"):
        store.ref("tiny")
    assert not store.root.exists()
    for name in ("cpu-tiny", "cuda-full", "tpu-full"):
        store.set_ref(name, store.put_bytes(b"{}"))
    with pytest.raises(UnknownRef) as caught:
        store.ref("cpu-tinny")
    assert caught.value.nearest[0] == "cpu-tiny"
    with pytest.raises(UnknownRef) as caught:
        store.ref("xyzzy")
    assert caught.value.nearest == ("cpu-tiny", "cuda-full", "tpu-full")


def test_a_ref_to_nothing_is_refused(store: Store) -> None:
    """The manifest must be there before its name."""
    with pytest.raises(MissingBlob):
        store.set_ref("tiny", BlobRef.of(b"never stored"))
    assert store.refs() == []


@pytest.mark.parametrize(
    "name", ["", "..", ".hidden", "../x", "a/b", "/abs", "A", "ü", "a\0", "a\n", "-x", "x" * 129, "a b"]
)
def test_names_stay_in_their_folder(store: Store, name: str) -> None:
    """Names that are paths, hidden or ambiguous are refused by refs, locks and logs alike."""
    ref = store.put_bytes(b"{}")
    with pytest.raises(BadName, match="not a valid ref"):
        store.set_ref(name, ref)
    with pytest.raises(BadName, match="not a valid ref"):
        store.ref(name)
    with pytest.raises(BadName, match="not a valid lock"), store.lock(name):
        pass
    with pytest.raises(BadName, match="not a valid log"):
        store.log_path(name)


def test_a_damaged_ref_is_named(store: Store) -> None:
    """A ref that was damaged, or names a path, is an error with its path, and setting it again repairs it."""
    ref = store.put_bytes(b"{}")
    store.set_ref("tiny", ref)
    path: Path = store.root / "refs" / "tiny.json"
    path.write_bytes(path.read_bytes().replace(ref.sha256[:8].encode(), b"00000000"))
    with pytest.raises(BadEntry, match="checksum") as caught:
        store.ref("tiny")
    assert caught.value.where == path
    for value in ({"manifest": {"sha256": "../x", "size": 1}, "summary": None}, {"path": "/etc/passwd"}):
        records.write(store._layout, path, value)
        with pytest.raises(BadEntry, match=str(path)):
            store.refs()
    store.set_ref("tiny", ref)
    assert store.ref("tiny") == ref
