"""Bundles made to do harm: every one is refused with an error of ours, and nothing comes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import fake_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from sharing import share, two_variants

from ltx_cache.address import Address
from ltx_cache.blobref import BlobRef
from ltx_cache.errors import (
    BadEntry,
    BadName,
    LtxError,
    RemoteFailed,
    StorageFull,
    UnknownBundle,
    WrongBytes,
)
from ltx_cache.folder_remote import FolderRemote
from ltx_cache.public_key import PublicKey
from ltx_cache.remote import decode_pointer, encode_pointer
from ltx_cache.store import Store
from ltx_cache.trust import Trust
from ltx_run.acquire import Order, acquire
from ltx_run.bundle import encode
from ltx_run.contents import contents, needed, parsed
from ltx_run.errors import BundleInvalid

Json = dict[str, Any]
Damage = Callable[[Json], object]
TRUST = Trust((), allow_unsigned=True)
ABSENT = "0" * 64


def executable(manifest: Json) -> Json:
    """The first program's executable."""
    found: Json = manifest["programs"]["small"]["executable"]
    return found


MANIFESTS: dict[str, tuple[Damage, type[LtxError]]] = {
    "digest that leads up": (lambda m: executable(m).update(sha256="../../../etc/passwd"), BadName),
    "absolute path": (lambda m: m["tokenizer"].update(sha256="/etc/passwd"), BadName),
    "digest in capitals": (lambda m: executable(m).update(sha256="A" * 64), BadName),
    "short digest": (lambda m: executable(m).update(sha256="a" * 63), BadName),
    "digest with a line end": (lambda m: executable(m).update(sha256="a" * 64 + "\n"), BadName),
    "digest with a null": (lambda m: executable(m).update(sha256="a" * 63 + "\0"), BadName),
    "negative size": (lambda m: executable(m).update(size=-1), BadName),
    "giant size": (lambda m: executable(m).update(size=1 << 60), StorageFull),
    "size beyond integers": (lambda m: executable(m).update(size=10**40), StorageFull),
    "size too small": (lambda m: executable(m).update(size=3), WrongBytes),
    "size too large": (lambda m: executable(m).update(size=3000), RemoteFailed),
    "size that is no number": (lambda m: executable(m).update(size="9"), BundleInvalid),
    "blob that isn't there": (lambda m: executable(m).update(sha256=ABSENT), LtxError),
    "unknown schema": (lambda m: m.update(schema=99), BundleInvalid),
    "schema of another type": (lambda m: m.update(schema="1"), BundleInvalid),
    "unknown field": (lambda m: m.update(run="rm -rf /"), BundleInvalid),
    "unknown field of a blob": (lambda m: m["tokenizer"].update(path="/etc/passwd"), BundleInvalid),
    "missing field": (lambda m: m.pop("tokenizer"), BundleInvalid),
    "unknown step": (lambda m: m["variants"]["small"].update(plan=[{"step": "exec"}]), BundleInvalid),
    "step with a path": (lambda m: m["variants"]["small"]["plan"][0].update(file="/x"), BundleInvalid),
    "program that isn't there": (lambda m: m["programs"].pop("small"), BundleInvalid),
    "weights that aren't there": (lambda m: m["weights"].clear(), BundleInvalid),
}
TEXTS = {
    "nothing": b"",
    "no JSON": b"\x80\x04\x95",
    "no UTF-8": b'{"name":"\xff\xfe"}',
    "list": b"[]",
    "null": b"null",
    "deep": b'{"recipe":' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}",
    "deep list": b"[" * 500_000,
    "no number": b'{"schema":NaN}',
    "two values": b"{}{}",
}


@pytest.fixture
def remote(tmp_path: Path) -> FolderRemote:
    """A remote with a sound bundle, the others' source."""
    remote, maker = FolderRemote(tmp_path / "remote"), Store(tmp_path / "maker")
    share(maker, remote, two_variants(maker), None)
    return remote


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


def put(remote: FolderRemote, root: Path, data: bytes) -> None:
    """Let the remote's bundle be these bytes, whatever they are."""
    ref = BlobRef.of(data)
    remote.put([(ref, data)], lambda count: None)
    (root / "remote" / "bundles" / "two.json").write_bytes(encode_pointer(ref))


def outside(store: Store, root: Path) -> list[Path]:
    """All files that are not in the store."""
    return sorted(path for path in root.rglob("*") if store.root not in (path, *path.parents))


def refused(store: Store, remote: FolderRemote, error: type[LtxError], root: Path) -> None:
    """Nothing is named, nothing is outside, and a variant can't be had either."""
    before = outside(store, root)
    for select in (lambda bundle: None, lambda bundle: ["small"]):
        with pytest.raises(error):
            acquire(store, Order(Address(remote, "two"), TRUST, select))
    assert store.refs() == []
    assert outside(store, root) == before


@pytest.mark.parametrize("name", MANIFESTS)
def test_hostile_manifests(name: str, remote: FolderRemote, store: Store, tmp_path: Path) -> None:
    """Each is refused by the error that says what is wrong."""
    damage, error = MANIFESTS[name]
    manifest = json.loads(encode(two_variants(Store(tmp_path / "maker"))))
    damage(manifest)
    put(remote, tmp_path, json.dumps(manifest).encode())
    if name in ("program that isn't there", "weights that aren't there"):
        with pytest.raises(error):
            acquire(store, Order(Address(remote, "two"), TRUST, lambda bundle: ["small"]))
        return
    refused(store, remote, error, tmp_path)


@pytest.mark.parametrize("name", TEXTS)
def test_manifests_that_are_none(name: str, remote: FolderRemote, store: Store, tmp_path: Path) -> None:
    """Whatever the bytes are."""
    put(remote, tmp_path, TEXTS[name])
    refused(store, remote, BundleInvalid, tmp_path)


def test_blobs_that_are_links(remote: FolderRemote, store: Store, tmp_path: Path) -> None:
    """What a link leads to has another digest; one without an end is read no further than the blob's size."""
    two = two_variants(Store(tmp_path / "maker"))
    path = tmp_path / "remote" / "blobs" / two.tokenizer.sha256
    for target in ("/etc/passwd", "/dev/zero"):
        path.unlink()
        path.symlink_to(target)
        with pytest.raises(WrongBytes):
            acquire(store, Order(Address(remote), TRUST, lambda bundle: None))
    assert store.refs() == []


@pytest.mark.parametrize("target", ["/dev/zero", "/etc/passwd", "/nowhere"])
def test_pointers_that_are_links(target: str, remote: FolderRemote, store: Store, tmp_path: Path) -> None:
    """They are no pointers, however much there is to read."""
    path = tmp_path / "remote" / "bundles" / "two.json"
    path.unlink()
    path.symlink_to(target)
    with pytest.raises((BadEntry, UnknownBundle)):
        acquire(store, Order(Address(remote, "two"), TRUST, lambda bundle: None))


def test_a_digest_that_lies(remote: FolderRemote, store: Store, tmp_path: Path) -> None:
    """A manifest under the digest of another is thrown away before it is looked at."""
    two = encode(two_variants(Store(tmp_path / "maker")))
    path = tmp_path / "remote" / "blobs" / BlobRef.of(two).sha256
    path.write_bytes(two.replace(b"executable", b"EXECUTABLE"))
    refused(store, remote, WrongBytes, tmp_path)


def anything() -> st.SearchStrategy[Any]:
    """JSON values, those that stand in manifests among them."""
    words = st.sampled_from(["small", "two", "vocoder", "run", "a" * 64, "../x", "", "float32"])
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words | st.text()
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4)
    )


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in ((value, key), *places(value[key]))]


def read(data: bytes) -> None:
    """All that is done with a manifest before anything is received; only our errors may come."""
    try:
        bundle = parsed(data)
        contents(data)
        for name in bundle.variants:
            needed(bundle, [name])
    except LtxError:
        pass


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A manifest with nothing wrong."""
    return encode(two_variants(Store(tmp_path_factory.mktemp("sound"))))


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_value_in_place_of_another(sound: bytes, data: st.DataObject) -> None:
    """A manifest with other values, fields left out or added."""
    manifest = json.loads(sound)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(manifest)))
        match data.draw(st.sampled_from(["replace", "remove", "add"])):
            case "remove" if key in container or isinstance(key, int):
                del container[key]
            case "add" if isinstance(container, dict):
                container[data.draw(st.text())] = data.draw(anything())
            case _:
                container[key] = data.draw(anything())
    read(json.dumps(manifest).encode())


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_bytes_in_place_of_others(sound: bytes, data: st.DataObject) -> None:
    """A manifest with bytes cut out, put in or changed; and bytes that never were one."""
    start, length = data.draw(st.integers(0, len(sound))), data.draw(st.integers(0, 40))
    read(sound[:start] + data.draw(st.binary(max_size=40)) + sound[start + length :])
    read(data.draw(st.binary()))


@settings(max_examples=200, deadline=None)
@given(st.binary())
def test_any_bytes_as_pointer_or_key(data: bytes) -> None:
    """The smaller formats raise errors of ours, too."""
    for work in (lambda: decode_pointer("it", data), lambda: PublicKey.parse(data.decode("latin-1"))):
        with pytest.raises(LtxError):
            work()


def test_a_deep_pointer_is_refused() -> None:
    """Nesting ends in an error, not in the interpreter's."""
    with pytest.raises(BadEntry):
        decode_pointer("it", b'{"sha256":"x","value":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    with pytest.raises(BadEntry):
        decode_pointer("it", b"[" * 1_000_000)


def test_duplicate_fields_mean_one_thing(store: Store) -> None:
    """Of a field that stands there twice every reader takes the same, so nothing unseen is loaded."""
    data = encode(fake_bundle(store))
    first = b'"tokenizer":{"sha256":"%s","size":1},' % ABSENT.encode()
    twice = data.replace(b'"tokenizer":', first + b'"tokenizer":')
    bundle = parsed(twice)
    assert BlobRef(bundle.tokenizer.sha256, bundle.tokenizer.size) in contents(twice)
    assert ABSENT not in {ref.sha256 for ref in contents(twice)}
