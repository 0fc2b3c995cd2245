"""Blobs: writing, reading, verifying."""

from __future__ import annotations

import array
import hashlib
import os
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadEntry, BadName, CorruptBlob, FileChanged, FileNotReadable, MissingBlob
from ltx_cache.files import TempFile
from ltx_cache.hashing import CHUNK
from ltx_cache.layout import Layout
from ltx_cache.stamps import Stamps
from ltx_cache.store import Store


def files(store: Store, folder: str) -> list[Path]:
    """All files below one folder of a store."""
    return sorted(path for path in (store.root / folder).rglob("*") if path.is_file())


def damage(path: Path) -> None:
    """Flip one bit of a file, and keep its size and time of change."""
    time.sleep(0.02)  # kernels may count file times in steps of some milliseconds
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_what_is_written_is_what_is_read(store: Store) -> None:
    """Bytes of any buffer type, in any pieces, make one blob under their sha256."""
    numbers = array.array("f", [1.0, 2.0, 3.0])
    with store.writer() as w:
        assert w.write(b"ab") == 2
        assert w.write(bytearray(b"cd")) == 2
        assert w.write(b"") == 0
        assert w.write(memoryview(numbers)) == 12
        ref = w.commit()
    expected = b"abcd" + numbers.tobytes()
    assert ref == BlobRef.of(expected)
    path = store.open(ref)
    assert path == store.root / "blobs" / ref.sha256[:2] / ref.sha256
    assert path.read_bytes() == expected


def test_large_buffers(store: Store, tmp_path: Path) -> None:
    """Buffers and files that are hashed in the background give the digest of their bytes."""
    data = os.urandom(3 << 20)
    with store.writer() as w:
        w.write(data)
        w.write(memoryview(data)[1:])
        assert w.commit() == BlobRef.of(data + data[1:])
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2 * CHUNK + 5))
    ref = store.put_file(source)
    assert ref == BlobRef.of(source.read_bytes())
    assert store.open(ref, paranoid=True).read_bytes() == source.read_bytes()


def test_a_buffer_may_be_used_again_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write returns when the bytes are hashed, even if the disk took them earlier."""
    monkeypatch.setattr(TempFile, "write", lambda self, data: None)
    buffer = bytearray(b"x") * (64 << 20)
    expected = hashlib.sha256(buffer).hexdigest()
    with store.writer() as w:
        w.write(buffer)
        buffer[-1] = 0
        assert w.commit().sha256 == expected


def test_blobs_are_read_only(store: Store) -> None:
    """Nobody writes to a blob by mistake, and the user's umask holds."""
    assert stat.S_IMODE(store.open(store.put_bytes(b"x")).stat().st_mode) == 0o444
    before = os.umask(0o077)
    try:
        assert stat.S_IMODE(store.open(store.put_bytes(b"y")).stat().st_mode) == 0o400
    finally:
        os.umask(before)


def test_nothing_is_left_without_commit(store: Store) -> None:
    """A block that ends early, by an error or not, leaves no file at all."""
    with store.writer() as w:
        w.write(b"x" * (3 << 20))
    with suppress(KeyboardInterrupt), store.writer() as w:
        w.write(b"x")
        assert len(files(store, "tmp")) == 1
        raise KeyboardInterrupt
    assert files(store, "blobs") == files(store, "tmp") == []


def test_a_writer_is_used_once(store: Store) -> None:
    """Outside its block and after commit a writer refuses to work."""
    writer = store.writer()
    with pytest.raises(RuntimeError, match="not open"):
        writer.write(b"x")
    with writer as w:
        w.commit()
        with pytest.raises(RuntimeError, match="not open"):
            w.write(b"x")
        with pytest.raises(RuntimeError, match="not open"):
            w.commit()
    assert store.has(BlobRef.of(b""))


def test_a_blob_is_stored_once(store: Store) -> None:
    """The same bytes again leave the first file as it is, and no temporary file."""
    ref = store.put_bytes(b"same")
    before = store.open(ref).stat()
    assert store.put_bytes(b"same") == ref
    assert store.open(ref).stat() == before
    assert files(store, "tmp") == []


def test_has_looks_at_the_size(store: Store) -> None:
    """A blob is there if a file of its name and size is."""
    ref = store.put_bytes(b"hello")
    assert store.has(ref)
    assert not store.has(BlobRef(ref.sha256, 4))
    assert not store.has(BlobRef.of(b"other"))


def test_a_missing_blob_is_named(store: Store) -> None:
    """Opening what is not there names digest and store."""
    ref = BlobRef.of(b"never stored")
    with pytest.raises(MissingBlob, match=ref.sha256) as caught:
        store.open(ref)
    assert str(store.root) in caught.value.message


def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Digests computed by `open` from now on."""
    from ltx_cache import blobs

    seen: list[str] = []
    original = blobs.hash_file

    def spy(file: object) -> str:
        seen.append(original(file))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr(blobs, "hash_file", spy)
    return seen


def test_first_read_hashes_then_the_stamp_stands(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copied store is hashed again, once; what we wrote ourselves is not; paranoid always hashes."""
    ref = store.put_bytes(b"hello")
    seen = hashed(monkeypatch)
    store.open(ref)
    assert seen == []
    shutil.copytree(store.root, store.root.parent / "copy")
    copy = Store(store.root.parent / "copy")
    copy.open(ref)
    copy.open(ref)
    assert len(seen) == 1
    copy.open(ref, paranoid=True)
    assert len(seen) == 2


def test_damage_is_found_named_and_set_aside(store: Store) -> None:
    """A flipped bit is found on the next read; the blob is then missing, and writing it again repairs it."""
    ref = store.put_bytes(b"hello world")
    damage(store.open(ref))
    with pytest.raises(CorruptBlob) as caught:
        store.open(ref)
    error = caught.value
    assert error.digest == ref.sha256
    assert ref.sha256 in error.expected
    assert BlobRef.of(b"hello!world").sha256 != error.actual
    assert error.path in files(store, "quarantine")
    assert str(error.path) in error.message
    assert not store.has(ref)
    with pytest.raises(MissingBlob):
        store.open(ref)
    store.put_bytes(b"hello world")
    assert store.open(ref, paranoid=True).read_bytes() == b"hello world"


def test_damage_is_found_in_a_copied_store(store: Store) -> None:
    """The stamp of another copy does not vouch for bytes that were damaged on the way."""
    ref = store.put_bytes(b"hello world")
    root = shutil.copytree(store.root, store.root.parent / "copy")
    damage(root / "blobs" / ref.sha256[:2] / ref.sha256)
    with pytest.raises(CorruptBlob):
        Store(root).open(ref)


def test_truncation_is_found(store: Store) -> None:
    """A blob that lost its end is damaged, whatever its stamp says."""
    ref = store.put_bytes(b"hello world")
    path = store.open(ref)
    path.chmod(0o644)
    os.truncate(path, 5)
    with pytest.raises(CorruptBlob, match="5 bytes"):
        store.open(ref)


def test_only_paranoid_finds_damage_behind_a_stamp(store: Store) -> None:
    """A stamp stands for the hash: damage that leaves the file's status alone is found by paranoid only."""
    ref = store.put_bytes(b"hello world")
    path = store.open(ref)
    damage(path)
    Stamps(Layout(store.root)).keep(ref.sha256, path.stat(), ref.sha256)
    assert store.open(ref) == path
    with pytest.raises(CorruptBlob):
        store.open(ref, paranoid=True)


def test_writing_repairs_damage_that_nobody_has_seen(store: Store) -> None:
    """A damaged file is not mistaken for the blob that is being written."""
    ref = store.put_bytes(b"hello world")
    damage(store.open(ref))
    store.put_bytes(b"hello world")
    assert store.open(ref, paranoid=True).read_bytes() == b"hello world"


def test_a_wrong_size_in_a_reference_does_not_cost_the_blob(store: Store) -> None:
    """If the bytes are right, the reference is wrong, and the blob stays."""
    ref = store.put_bytes(b"hello")
    with pytest.raises(BadEntry, match="says 6 bytes, it has 5"):
        store.open(BlobRef(ref.sha256, 6))
    assert store.open(ref).read_bytes() == b"hello"


def test_a_blob_repaired_while_it_was_hashed_is_not_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage found in a file that another process has replaced by now sets nothing aside."""
    from ltx_cache import blobs

    ref = store.put_bytes(b"hello world")
    damage(store.open(ref))
    original = blobs.hash_file

    def repair_meanwhile(file: object) -> str:
        found = original(file)  # type: ignore[arg-type]
        monkeypatch.setattr(blobs, "hash_file", original)
        store.put_bytes(b"hello world")
        return found

    monkeypatch.setattr(blobs, "hash_file", repair_meanwhile)
    assert store.open(ref).read_bytes() == b"hello world"
    assert files(store, "quarantine") == []


@pytest.mark.parametrize(
    "sha256", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n", "/" + "0" * 63]
)
def test_malformed_digests_never_reach_a_path(sha256: str) -> None:
    """A reference is 64 lower case hex digits or does not exist."""
    with pytest.raises(BadName, match="sha256"):
        BlobRef(sha256, 0)


def test_malformed_references_are_refused() -> None:
    """Negative sizes, other types and other fields are errors."""
    good = BlobRef.of(b"x")
    assert BlobRef.parse(good.json()) == good
    with pytest.raises(BadName, match="negative"):
        BlobRef(good.sha256, -1)
    for value in (
        None,
        [],
        {},
        {"sha256": good.sha256},
        {**good.json(), "path": "/"},
        {"sha256": good.sha256, "size": True},
    ):
        with pytest.raises(ValueError, match="sha256 and its size"):
            BlobRef.parse(value)


def test_put_file_refuses_what_it_cannot_read(store: Store, tmp_path: Path) -> None:
    """A missing file and a folder are errors that name the path."""
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(FileNotReadable, match=str(path)):
            store.put_file(path)
    assert files(store, "tmp") == []


def test_put_file_refuses_a_file_that_changes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that grows while it is copied is not stored."""
    from ltx_cache import blobs

    path = tmp_path / "growing"
    path.write_bytes(b"x" * 100)
    original = blobs._copy

    def grow(source: object, temp: object) -> BlobRef:
        ref = original(source, temp)  # type: ignore[arg-type]
        path.write_bytes(b"x" * 200)
        return ref

    monkeypatch.setattr(blobs, "_copy", grow)
    with pytest.raises(FileChanged, match="growing"):
        store.put_file(path)
    assert files(store, "blobs") == files(store, "tmp") == []
