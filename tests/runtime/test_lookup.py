"""Finding bundles and their blobs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from runtime_helpers import job

from ltx_cache.errors import BadName, CorruptBlob, StoreInUse
from ltx_cache.gc import Limits, collect
from ltx_cache.store import Store
from ltx_run.bundle import Blob, blobs, decode, encode
from ltx_run.contents import contents
from ltx_run.errors import BundleInvalid, BundleNotFound
from ltx_run.lookup import MANIFEST, find, in_use


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty cache for this test."""
    monkeypatch.setenv("LTX_HOME", str(tmp_path / "home"))
    return Store(tmp_path / "home")


def publish(bundle: Path, store: Store, name: str) -> None:
    """Put a bundle directory into the cache."""
    for path in (bundle / "blobs").iterdir():
        store.put_file(path)
    store.set_ref(name, store.put_file(bundle / MANIFEST))


def test_a_path_needs_no_cache(bundles: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has no home folder can look at a bundle in a directory all the same."""
    monkeypatch.setenv("LTX_HOME", "~nobody-of-that-name/x")
    assert find(str(bundles[1])).manifest.name
    with in_use(str(bundles[1])):
        pass


def test_name_in_the_cache(bundles: dict[int, Path], store: Store, tmp_path: Path) -> None:
    """A name is looked up in the cache; the digest is that of the manifest there."""
    publish(bundles[1], store, "toy")
    found = find("toy")
    assert found.digest == store.ref("toy").sha256
    assert job(Path("toy"), tmp_path).jobs[0].ids == ((1, 2, 3, 4, 5),)


def test_directory_does_not_hide_a_name(
    bundles: dict[int, Path], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that is no bundle doesn't stand in the way of a bundle in the cache."""
    publish(bundles[1], store, "toy")
    (tmp_path / "toy").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find("toy").manifest.name == "toy"


def test_bundle_in_a_directory_does_not_hide_a_name(
    bundles: dict[int, Path], toy_bundle: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the working folder, from earlier or from somebody else, is run if a path says so."""
    manifest = decode((toy_bundle / MANIFEST).read_bytes())
    (toy_bundle / MANIFEST).write_bytes(encode(msgspec.structs.replace(manifest, name="stale")))
    monkeypatch.chdir(tmp_path)
    assert find("toy").manifest.name == "stale"
    publish(bundles[1], store, "toy")
    assert find("toy").manifest.name == "toy"
    for path in ("./toy", "toy/", str(toy_bundle)):
        assert find(path).manifest.name == "stale"
    monkeypatch.chdir(toy_bundle)
    assert find(".").manifest.name == "stale"
    monkeypatch.chdir(toy_bundle / "blobs")
    assert find("..").manifest.name == "stale"


def test_a_name_is_held_and_a_directory_is_not(
    bundles: dict[int, Path], toy_bundle: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle of the cache can't be collected while it is used, whatever lies in the working folder."""
    monkeypatch.chdir(tmp_path)
    with in_use("toy"):
        assert not store.root.exists()
    publish(bundles[1], store, "toy")
    with in_use("toy"), pytest.raises(StoreInUse):
        collect(store, contents, Limits(), wait=0.0)
    with in_use("./toy"):
        collect(store, contents, Limits(), wait=0.0)


def test_unknown_names(bundles: dict[int, Path], store: Store, tmp_path: Path) -> None:
    """A mistyped name gets the nearest one, a path that is no bundle says so."""
    publish(bundles[1], store, "cpu-tiny")
    with pytest.raises(BundleNotFound) as caught:
        find("cpu-tyni")
    assert caught.value.hint == "did you mean cpu-tiny?"
    with pytest.raises(BundleNotFound, match=r"it holds no bundle\.json"):
        find(str(tmp_path))
    with pytest.raises(BundleNotFound, match="there is no such directory"):
        find(str(tmp_path / "nothing"))


@pytest.mark.parametrize("damage", [b"{", b'{"schema": 2}', b'{"schema": 1, "surprise": true}'])
def test_manifest_is_read_strictly(toy_bundle: Path, damage: bytes) -> None:
    """A manifest that is no JSON, of another version or with unknown fields is refused."""
    (toy_bundle / MANIFEST).write_bytes(damage)
    with pytest.raises(BundleInvalid, match="manifest of"):
        find(str(toy_bundle))


def test_damaged_manifest_in_the_cache(bundles: dict[int, Path], store: Store) -> None:
    """A manifest is compared with its digest before it is parsed."""
    publish(bundles[1], store, "toy")
    ref = store.ref("toy")
    path = store.open(ref)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"toy", b"tox"))
    with pytest.raises(CorruptBlob):
        find("toy")


def test_missing_files_are_listed_before_anything_runs(toy_bundle: Path, tmp_path: Path) -> None:
    """A bundle without some of its files says which program or weights they are."""
    manifest = decode((toy_bundle / MANIFEST).read_bytes())
    (toy_bundle / "blobs" / manifest.programs["vocoder"].executable.sha256).unlink()
    shared = manifest.weights["decoder"].shared
    assert shared is not None
    (toy_bundle / "blobs" / shared.sha256).write_bytes(b"short")
    with pytest.raises(BundleInvalid, match=r"lacks program vocoder \(.*\), weights decoder \(.*\)"):
        job(toy_bundle, tmp_path)


def test_every_blob_is_verified_before_use(bundles: dict[int, Path], toy_bundle: Path) -> None:
    """One flipped byte in any file is found when its path is asked for."""
    bundle = find(str(toy_bundle))
    for blob in blobs(bundle.manifest):
        path = toy_bundle / "blobs" / blob.sha256
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(BundleInvalid, match="is damaged"):
            bundle.path(blob)
    shutil.rmtree(toy_bundle / "blobs")
    shutil.copytree(bundles[1] / "blobs", toy_bundle / "blobs")
    assert all(bundle.path(blob).stat().st_size == blob.size for blob in blobs(bundle.manifest))


def test_digest_can_not_leave_the_bundle(edit: Callable[..., Path], tmp_path: Path) -> None:
    """A manifest that gives a path instead of a digest is refused."""
    (tmp_path / "secret").write_bytes(b"x")
    folder = edit(tokenizer=Blob(sha256="../../secret", size=1))
    bundle = find(str(folder))
    with pytest.raises(BadName):
        bundle.path(bundle.manifest.tokenizer)
