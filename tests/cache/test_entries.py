"""Entries: hits, misses and their reasons."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ltx_cache import records
from ltx_cache.blobref import BlobRef
from ltx_cache.canonical import JSON
from ltx_cache.errors import MissingBlob
from ltx_cache.key import Factor, Key
from ltx_cache.store import Hit, Miss, Store


def key(**factors: JSON) -> Key:
    """A program key."""
    return Key("program", tuple(Factor(name, value) for name, value in factors.items()))


KEY = key(jaxlib="0.10.2", shape={"height": 512})


def entry_path(store: Store, of: Key = KEY) -> Path:
    """Where an entry is."""
    return store.root / "entries" / of.kind / f"{of.digest}.json"


def test_hit_gives_value_and_blobs(store: Store) -> None:
    """What was put under a key is found under an equal key, by another instance too."""
    blobs = (store.put_bytes(b"a"), store.put_bytes(b"b"))
    store.put_entry(KEY, {"flops": 1.5, "names": ["x"]}, blobs)
    found = Store(store.root).lookup(key(shape={"height": 512}, jaxlib="0.10.2"))
    assert found == Hit({"flops": 1.5, "names": ["x"]}, blobs)


def test_miss_without_entry(store: Store) -> None:
    """An unknown key is a miss, also in a store that does not exist yet, and looking creates nothing."""
    assert store.lookup(KEY) == Miss("no entry has this key")
    assert not store.root.exists()


def test_miss_lists_the_blobs_that_are_gone(store: Store) -> None:
    """An entry with a missing or truncated blob is a miss that lists exactly these."""
    kept, gone, short = (store.put_bytes(data) for data in (b"kept", b"gone", b"short"))
    store.put_entry(KEY, None, (kept, gone, short))
    store.open(gone).unlink()
    store.open(short).chmod(0o644)
    os.truncate(store.open(short), 2)
    assert store.lookup(KEY) == Miss("2 of 3 blobs are gone", (gone, short))
    store.put_bytes(b"gone")
    store.put_bytes(b"short")
    assert isinstance(store.lookup(KEY), Hit)


def test_an_entry_is_not_published_before_its_blobs(store: Store) -> None:
    """Putting an entry whose blob is not there fails, and leaves no entry."""
    with pytest.raises(MissingBlob):
        store.put_entry(KEY, None, [BlobRef.of(b"never stored")])
    assert not entry_path(store).exists()


def test_an_entry_is_replaced_in_one_step(store: Store) -> None:
    """The later result of a key stands."""
    store.put_entry(KEY, 1, [])
    store.put_entry(KEY, 2, [])
    assert store.lookup(KEY) == Hit(2, ())


def test_every_flipped_bit_is_a_miss(store: Store) -> None:
    """No single damaged byte of an entry gives a hit with other content."""
    store.put_entry(KEY, {"value": 12}, [store.put_bytes(b"code")])
    path = entry_path(store)
    data = path.read_bytes()
    for index in range(len(data) - 1):  # the last byte is a line feed
        path.write_bytes(data[:index] + bytes([data[index] ^ 4]) + data[index + 1 :])
        found = store.lookup(KEY)
        assert isinstance(found, Miss), index
        assert found.reason.startswith("the entry is damaged")
    for size in range(len(data) - 1):
        path.write_bytes(data[:size])
        assert isinstance(store.lookup(KEY), Miss), size


def test_an_entry_under_the_name_of_another_key_is_a_miss(store: Store) -> None:
    """The stored factors must hash to the entry's own name."""
    other = key(jaxlib="0.10.3")
    store.put_entry(other, "other", [])
    entry_path(store, other).rename(entry_path(store))
    assert store.lookup(KEY) == Miss("the entry is damaged: its factors are those of another key")


@pytest.mark.parametrize(
    "change",
    [
        {"blobs": [{"sha256": "../../../../etc/passwd", "size": 1}]},
        {"blobs": [{"path": "/etc/passwd"}]},
        {"blobs": "all"},
        {"kind": "../program"},
        {"factors": []},
    ],
    ids=["blob outside", "blob by path", "blobs not a list", "kind outside", "no factors"],
)
def test_a_forged_entry_names_nothing_outside(store: Store, change: dict[str, JSON]) -> None:
    """An entry with a sound checksum and a path in it is damaged, and the path is not followed."""
    entry = {"kind": KEY.kind, "factors": KEY.values, "value": 1, "blobs": []}
    records.write(store._layout, entry_path(store), {**entry, **change})
    found = store.lookup(KEY)
    assert isinstance(found, Miss)
    assert found.reason.startswith("the entry is damaged")


def test_entries_lists_keys_of_a_kind(store: Store) -> None:
    """All sound entries of a kind are listed with their factors; damaged ones are passed over."""
    keys = [key(n=n) for n in range(3)]
    for one in keys:
        store.put_entry(one, None, [])
    store.put_entry(Key("weights", ()), None, [])
    entry_path(store, keys[1]).write_bytes(b"{}")
    listed = list(store.entries("program"))
    assert set(listed) == {keys[0], keys[2]}
    assert {one.values["n"] for one in listed} == {0, 2}
    assert list(store.entries("unknown")) == []


def test_nearest_explains_a_miss(store: Store) -> None:
    """The nearest key is the one with the fewest differences, and they are told from old to new."""
    assert store.nearest(KEY) is None
    store.put_entry(key(jaxlib="0.9", shape={"height": 1024}), None, [])
    store.put_entry(key(jaxlib="0.10.2", shape={"height": 768}), None, [])
    store.put_entry(KEY, None, [])
    nearest = store.nearest(KEY)
    assert nearest is not None
    assert [str(change) for change in nearest[1]] == ["shape.height: 768 -> 512"]
    assert nearest[0].values["jaxlib"] == "0.10.2"


def test_values_must_be_json(store: Store) -> None:
    """A value that is not JSON is refused before anything is written."""
    with pytest.raises(TypeError, match="bytes"):
        store.put_entry(KEY, {"x": b""}, [])  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="JSON compliant"):
        store.put_entry(KEY, float("nan"), [])
    assert not store.root.exists()
