"""Checking a whole store, and repairing it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltx_cache.blobref import BlobRef
from ltx_cache.canonical import canonical, parse
from ltx_cache.errors import BadEntry, BadName, FileNotReadable, LtxError, UnknownRef
from ltx_cache.key import Factor, Key
from ltx_cache.store import Hit, Miss, Store
from ltx_cache.verify import Problem, verify, verify_ref

KEY = Key("program", (Factor("n", 1),))


def reach(manifest: bytes) -> list[BlobRef]:
    """Manifests of these tests: JSON lists of blobs."""
    try:
        listed = parse(manifest)
    except ValueError as error:
        raise LtxError(f"unreadable manifest: {error}") from None
    assert isinstance(listed, list)
    return [BlobRef.parse(item) for item in listed]


@pytest.fixture
def blob(store: Store) -> BlobRef:
    """The one blob of a store with an entry and a ref that reach it."""
    ref = store.put_bytes(b"code")
    store.put_entry(KEY, "value", [ref])
    store.set_ref("bundle", store.put_bytes(canonical([ref.json()])))
    return ref


def damage(path: Path, data: bytes = b"cope") -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def kinds(problems: tuple[Problem, ...]) -> list[tuple[str, bool]]:
    return [(problem.what, problem.removed) for problem in problems]


def test_a_sound_store_has_no_problems(store: Store, blob: BlobRef) -> None:
    """Everything is counted, progress adds up to the bytes hashed."""
    told: list[int] = []
    found = verify(store, reach, progress=told.append)
    assert (found.blobs, found.records, found.problems) == (2, 2, ())
    assert found.size == sum(told) == 4 + store.ref("bundle").size


def test_an_empty_store_is_sound(tmp_path: Path) -> None:
    """A store that doesn't exist has nothing wrong with it, and is not made."""
    assert verify(Store(tmp_path / "none"), reach).problems == ()
    assert not (tmp_path / "none").exists()


def test_a_damaged_blob_is_named_with_all_that_needs_it(store: Store, blob: BlobRef) -> None:
    """The stamp doesn't help; the entry and the bundle that name the blob are reported too."""
    path = store.open(blob)
    damage(path)
    found = verify(store, reach)
    assert kinds(found.problems) == [("blob", True), ("entry", False), ("ref", False)]
    assert found.problems[0].name == blob.sha256
    assert all(blob.sha256 in problem.reason for problem in found.problems[1:])
    assert not path.exists()
    assert len(list((store.root / "quarantine").iterdir())) == 1


def test_repair_lets_the_next_build_start_clean(store: Store, blob: BlobRef) -> None:
    """The useless entry goes; the ref stays and says what it lacks until that is built again."""
    damage(store.open(blob))
    assert kinds(verify(store, reach, repair=True).problems)[1:] == [("entry", True), ("ref", False)]
    assert isinstance(store.lookup(KEY), Miss)
    assert kinds(verify(store, reach).problems) == [("ref", False)]
    store.put_entry(KEY, "value", [store.put_bytes(b"code")])
    assert verify(store, reach).problems == ()
    assert isinstance(store.lookup(KEY), Hit)


def test_a_damaged_entry_or_ref_is_removed_on_repair_only(store: Store, blob: BlobRef) -> None:
    """Records that don't check out are named, and gone after a repair."""
    for path in (*(store.root / "entries").rglob("*.json"), *(store.root / "refs").iterdir()):
        damage(path, path.read_bytes().replace(b"a", b"b", 1))
    assert kinds(verify(store, reach).problems) == [("entry", False), ("ref", False)]
    assert kinds(verify(store, reach, repair=True).problems) == [("entry", True), ("ref", True)]
    assert verify(store, reach).problems == ()


def test_an_entry_in_the_folder_of_another_kind_is_a_problem(store: Store, blob: BlobRef) -> None:
    """The kind counts like the factors."""
    (store.root / "entries" / "program").rename(store.root / "entries" / "weights")
    assert verify(store, reach).problems[0].reason == "it is of kind program"


def test_a_manifest_that_cannot_be_read_is_a_problem_of_its_ref(store: Store) -> None:
    """A manifest of a version to come is reported and left alone."""
    store.set_ref("future", store.put_bytes(b"{"))
    found = verify(store, reach, repair=True)
    assert kinds(found.problems) == [("ref", False)]
    assert "unreadable manifest" in found.problems[0].reason


@pytest.mark.parametrize("name", ["notes.txt", "0" * 63, "f" * 64])
def test_what_is_no_blob_is_named_and_set_aside(store: Store, name: str) -> None:
    """A file that got among the blobs, or into the wrong folder of them."""
    folder = store.root / "blobs" / "aa"
    folder.mkdir(parents=True)
    (folder / name).write_text("")
    Store(store.root).put_bytes(b"x")
    assert kinds(verify(store, reach).problems) == [("blob", False)]
    assert kinds(verify(store, reach, repair=True).problems) == [("blob", True)]
    assert verify(store, reach).problems == ()


def test_a_link_is_no_blob(store: Store, blob: BlobRef, tmp_path: Path) -> None:
    """A link to the right bytes may point to others tomorrow."""
    (tmp_path / "elsewhere").write_bytes(b"code")
    path = store.open(blob)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert verify(store, reach).problems[0].reason == "it is no blob of this store"


def test_one_ref_alone(store: Store, blob: BlobRef) -> None:
    """Only what the bundle names is hashed; what others lack is none of its business."""
    damage(store.open(store.put_bytes(b"other")))
    found = verify_ref(store, "bundle", reach)
    assert (found.blobs, found.problems) == (2, ())
    damage(store.open(blob))
    assert kinds(verify_ref(store, "bundle", reach).problems) == [("blob", True)]
    assert verify_ref(store, "bundle", reach).problems[0].reason == "it is missing"
    damage(store.open(store.ref("bundle")))
    found = verify_ref(store, "bundle", reach)
    assert (found.blobs, kinds(found.problems)) == (1, [("blob", True)])
    with pytest.raises(UnknownRef):
        verify_ref(store, "nothing", reach)


def test_a_size_that_lies_is_a_problem(store: Store, blob: BlobRef) -> None:
    """A manifest that names the right bytes with a wrong size is not sound."""
    lying = store.put_bytes(canonical([{**blob.json(), "size": 5}]))
    store.set_ref("bundle", lying)
    assert "5 bytes" in verify_ref(store, "bundle", reach).problems[0].reason
    assert kinds(verify(store, reach).problems) == [("ref", False)]


def test_an_unreadable_record_stops_the_check(store: Store, blob: BlobRef) -> None:
    """A broken disk is not a damaged record: nothing is removed for it."""
    path = store.root / "entries" / "program" / f"{KEY.digest}.json"
    path.unlink()
    path.mkdir()
    with pytest.raises(FileNotReadable):
        verify(store, reach, repair=True)


def test_every_flipped_bit_of_a_record_is_found(store: Store, blob: BlobRef) -> None:
    """Each bit of the entry and of the ref: the key misses, the name is refused."""
    for path in (store.root / "entries" / "program" / f"{KEY.digest}.json", store.root / "refs/bundle.json"):
        sound = path.read_bytes()
        for bit in range(8 * len(sound)):
            flipped = bytearray(sound)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            if path.parent.name == "program":
                found = store.lookup(KEY)
                # The newline at the end, changed into another space, changes nothing.
                assert isinstance(found, Miss) or parse(bytes(flipped)) == parse(sound), bit
            else:
                try:
                    assert store.ref("bundle").sha256, bit
                    assert parse(bytes(flipped)) == parse(sound), bit
                except (BadEntry, BadName):
                    pass
        path.write_bytes(sound)
