"""Damage is found before anything is loaded; `ltxbuild verify`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import fake_bundle, publish
from commands import Command

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import CorruptBlob, LtxError
from ltx_cache.store import Store
from ltx_run.bundle import blobs
from ltx_run.lookup import find


def flips(data: bytes) -> Iterator[bytes]:
    """The bytes with each of their bits flipped in turn."""
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def damage(path: Path, data: bytes) -> None:
    """Replace a blob's bytes."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


@pytest.fixture
def bundle(store: Store, monkeypatch: pytest.MonkeyPatch) -> BlobRef:
    """A bundle in the cache, by its manifest; all of it was hashed before."""
    monkeypatch.setenv("LTX_HOME", str(store.root))
    return publish(store, fake_bundle(store))


def test_every_flipped_bit_of_the_manifest_is_found(store: Store, bundle: BlobRef) -> None:
    """No bundle is opened whose manifest differs in a single bit."""
    path = store.open(bundle)
    sound = path.read_bytes()
    for flipped in flips(sound):
        damage(path, flipped)
        with pytest.raises(CorruptBlob):
            find("fake")
    damage(path, sound)
    assert find("fake").manifest.name == "fake"


def test_every_flipped_bit_of_every_blob_is_found(store: Store, bundle: BlobRef) -> None:
    """No path is handed out to a blob that differs in a single bit."""
    opened = find("fake")
    named = blobs(opened.manifest)
    assert len(named) == 5
    for blob in named:
        path = opened.path(blob)
        sound = path.read_bytes()
        for flipped in flips(sound):
            damage(path, flipped)
            with pytest.raises(CorruptBlob):
                opened.path(blob)
        damage(path, sound)
        assert opened.path(blob).read_bytes() == sound


def test_every_flipped_bit_of_the_name_is_found(store: Store, bundle: BlobRef) -> None:
    """The record that turns the name into a digest checks itself."""
    path = store.root / "refs" / "fake.json"
    sound = path.read_bytes().rstrip()
    for flipped in flips(sound):
        path.write_bytes(flipped)
        with pytest.raises(LtxError):
            find("fake")


def test_paranoid_hashes_what_has_a_stamp(
    store: Store, bundle: BlobRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that rots keeps every stamp: only `paranoid` sees it."""
    blob = blobs(find("fake").manifest)[0]
    path = store.open(BlobRef(blob.sha256, blob.size))
    damage(path, b"EXECUTABLE")
    monkeypatch.setattr("ltx_cache.stamps.identity", lambda status: [0])
    record = store.root / "stamps" / f"{blob.sha256}.json"
    record.unlink()
    damage(path, b"executable")
    store.open(BlobRef(blob.sha256, blob.size))
    damage(path, b"EXECUTABLE")
    assert find("fake").path(blob).read_bytes() == b"EXECUTABLE"
    with pytest.raises(CorruptBlob):
        find("fake", paranoid=True).path(blob)


def test_a_sound_cache_exits_with_zero(bundle: BlobRef, ltxbuild: Command) -> None:
    """What was checked is counted on standard error, and nothing is on standard output."""
    done = ltxbuild("verify")
    assert (done.code, done.out) == (0, "")
    assert "6 blobs hashed" in done.err
    assert ltxbuild("verify", "fake").code == 0


def test_damage_exits_with_one_and_is_named(store: Store, bundle: BlobRef, ltxbuild: Command) -> None:
    """The blob, the entry and the bundle are listed; a repair says what it removed."""
    blob = blobs(find("fake").manifest)[0]
    damage(store.open(BlobRef(blob.sha256, blob.size)), b"EXECUTABLE")
    done = ltxbuild("verify", "--json")
    found = json.loads(done.out)["problems"]
    assert done.code == 1
    assert [problem["what"] for problem in found] == ["blob", "entry", "ref"]
    assert found[0]["name"] == blob.sha256
    assert "--repair" in done.err
    done = ltxbuild("verify", "--repair")
    assert done.code == 1
    assert "removed" in done.out
    assert [p["what"] for p in json.loads(ltxbuild("verify", "--json").out)["problems"]] == ["ref"]
    done = ltxbuild("verify", "fake")
    assert done.code == 1
    assert "missing" in done.out


def test_repair_is_for_the_whole_cache(bundle: BlobRef, ltxbuild: Command) -> None:
    """Entries belong to no bundle."""
    assert ltxbuild("verify", "fake", "--repair").code == 2
    assert ltxbuild("verify", "fakee").code == 2
