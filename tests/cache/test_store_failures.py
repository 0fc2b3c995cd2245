"""Disks that are full, read-only or broken."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ltx_cache.errors import CorruptBlob, FileNotReadable, StorageFull, StoreNotWritable
from ltx_cache.key import Key
from ltx_cache.store import Hit, Store

KEY = Key("program", ())


def state(store: Store) -> dict[str, bytes]:
    """Every file of a store."""
    return {str(path): path.read_bytes() for path in store.root.rglob("*") if path.is_file()}


def failing(monkeypatch: pytest.MonkeyPatch, name: str, code: int, after: int = 0) -> None:
    """Let a system call fail with a code, after so many good calls."""
    call, left = getattr(os, name), [after]

    def wrapped(*args: Any, **named: Any) -> Any:
        if left[0] == 0:
            raise OSError(code, os.strerror(code), args[0] if isinstance(args[0], (str, Path)) else None)
        left[0] -= 1
        return call(*args, **named)

    monkeypatch.setattr(os, name, wrapped)


def creating_fails(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A file system on which nothing can be created, as a read-only one."""
    call = os.open

    def read_only(path: Any, flags: int, *args: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(code, os.strerror(code), str(path))
        return call(path, flags, *args, **named)

    monkeypatch.setattr(os, "open", read_only)


@pytest.fixture
def filled(store: Store) -> Store:
    """A store with one result and a ref."""
    ref = store.put_bytes(b"old")
    store.put_entry(KEY, "old", [ref])
    store.set_ref("bundle", ref)
    return store


def put_in_two_writes(store: Store, data: bytes) -> None:
    """Store the bytes twice over as one blob."""
    with store.writer() as w:
        w.write(data)
        w.write(data)
        w.commit()


@pytest.mark.parametrize(
    ("call", "code", "after", "kind", "reason"),
    [
        ("write", errno.ENOSPC, 0, StorageFull, "No space left on device"),
        ("write", errno.ENOSPC, 1, StorageFull, "No space left on device"),
        ("write", errno.EDQUOT, 0, StorageFull, "quota"),
        ("write", errno.EIO, 0, StoreNotWritable, "Input/output error"),
        ("fsync", errno.ENOSPC, 0, StorageFull, "No space left on device"),
        ("replace", errno.EACCES, 0, StoreNotWritable, "Permission denied"),
        ("replace", errno.ENOSPC, 0, StorageFull, "No space left on device"),
    ],
)
@pytest.mark.parametrize("size", [10, 5 << 20], ids=["small", "large"])
def test_a_failing_disk_loses_nothing(
    filled: Store,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    code: int,
    after: int,
    kind: type[StoreNotWritable],
    reason: str,
    size: int,
) -> None:
    """The error names path, reason and LTX_HOME; what was there stays, and no temporary file does."""
    before = state(filled)
    failing(monkeypatch, call, code, after)
    with pytest.raises(kind, match=reason) as caught:
        put_in_two_writes(filled, bytes(size))
    assert type(caught.value) is kind
    assert str(filled.root) in caught.value.message
    assert "LTX_HOME" in str(caught.value)
    assert state(filled) == before


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_read_only_store_can_be_read(filled: Store, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Results are found and blobs without a stamp hashed; every write names the path and the reason."""
    for stamp in (filled.root / "stamps").iterdir():
        stamp.unlink()
    before = state(filled)
    creating_fails(monkeypatch, code)
    found = Store(filled.root).lookup(KEY)
    assert isinstance(found, Hit)
    assert filled.open(filled.ref("bundle")).read_bytes() == b"old"
    assert len(filled.file_digest(filled.open(found.blobs[0]))) == 64
    for write in (
        lambda: filled.put_bytes(b"new"),
        lambda: filled.put_file(Path(__file__)),
        lambda: filled.put_entry(KEY, "new", []),
        lambda: filled.set_ref("bundle", found.blobs[0]),
    ):
        with pytest.raises(StoreNotWritable, match=os.strerror(code)) as caught:
            write()
        assert str(filled.root / "tmp") in caught.value.message
    assert state(filled) == before


def test_a_lock_in_a_read_only_store_is_an_error(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that can't be made is not a lock that is free."""
    creating_fails(monkeypatch, errno.EROFS)
    with pytest.raises(StoreNotWritable, match="Read-only"), filled.lock("build"):
        pass


def test_damage_in_a_read_only_store_is_still_found(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged blob that can't be set aside is an error that says so."""
    ref = filled.ref("bundle")
    path = filled.open(ref)
    path.chmod(0o644)
    path.write_bytes(b"odd")
    failing(monkeypatch, "replace", errno.EROFS)
    with pytest.raises(CorruptBlob, match="still in place") as caught:
        filled.open(ref)
    assert caught.value.path is None


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    """A root below a file is an error with its path, on the first write."""
    (tmp_path / "file").write_text("")
    with pytest.raises((StoreNotWritable, FileNotReadable), match="Not a directory"):
        Store(tmp_path / "file" / "store").put_bytes(b"x")


def test_an_unreadable_entry_is_not_a_miss(filled: Store) -> None:
    """A broken disk is not a reason to build again without a word."""
    path = filled.root / "entries" / "program" / f"{KEY.digest}.json"
    path.unlink()
    path.mkdir()
    with pytest.raises(FileNotReadable, match="Is a directory"):
        filled.lookup(KEY)
