"""Digests of files outside the store."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ltx_cache import digests
from ltx_cache.canonical import digest
from ltx_cache.errors import FileChanged, FileNotReadable
from ltx_cache.hashing import CHUNK
from ltx_cache.store import Store


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file outside the store."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is a minute ahead, so that files just written are old."""
    monkeypatch.setattr(
        digests.time, "time_ns", lambda: time.clock_gettime_ns(time.CLOCK_REALTIME) + 60 * 10**9
    )


def reads(store: Store, path: Path) -> bool:
    """Whether a call reads the file; checks the digest on the way."""
    seen: list[tuple[int, int]] = []
    assert store.file_digest(path, lambda done, total: seen.append((done, total))) == digest(
        path.read_bytes()
    )
    return bool(seen)


@pytest.mark.usefixtures("later")
def test_a_file_is_hashed_once(store: Store, model: Path) -> None:
    """The second call takes the stamp, in another instance and through a link too."""
    link = model.with_name("link")
    link.symlink_to(model)
    assert reads(store, model)
    assert not reads(store, model)
    assert not reads(Store(store.root), link)


@pytest.mark.usefixtures("later")
def test_a_changed_file_is_hashed_again(store: Store, model: Path) -> None:
    """Other bytes are noticed, even of the same size and with the old time; so is another file there."""
    reads(store, model)
    status = model.stat()
    time.sleep(0.02)  # kernels may count file times in steps of some milliseconds
    model.write_bytes(b"WEIGHTS")
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert reads(store, model)
    other = model.with_name("other")
    other.write_bytes(b"weightz")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(model)
    assert reads(store, model)
    assert not reads(store, model)


def test_a_file_that_was_just_written_gets_no_stamp(store: Store, model: Path) -> None:
    """For two seconds after a change a file is hashed on every call: its times may not show the next one."""
    assert reads(store, model)
    assert reads(store, model)


@pytest.mark.usefixtures("later")
def test_a_file_from_the_future_gets_no_stamp(store: Store, model: Path) -> None:
    """A time of change that has not come yet proves nothing."""
    os.utime(model, (time.time() + 3600, time.time() + 3600))
    assert reads(store, model)
    assert reads(store, model)


def test_progress_counts_bytes(store: Store, model: Path) -> None:
    """Progress rises to the size of the file."""
    model.write_bytes(bytes(CHUNK + 10))
    seen: list[tuple[int, int]] = []
    store.file_digest(model, lambda done, total: seen.append((done, total)))
    assert seen == [(CHUNK, CHUNK + 10), (CHUNK + 10, CHUNK + 10)]


def test_a_file_that_changes_while_it_is_read_is_an_error(store: Store, model: Path) -> None:
    """A download that still runs is not taken for a checkpoint, even if it is as quick as the reading."""

    def grow(done: int, total: int) -> None:
        with model.open("ab") as file:
            file.write(b"more")

    with pytest.raises(FileChanged, match=str(model)):
        store.file_digest(model, grow)


def test_what_cannot_be_read_is_named(store: Store, tmp_path: Path) -> None:
    """A missing file and a folder are errors with path and reason."""
    with pytest.raises(FileNotReadable, match="missing: No such file"):
        store.file_digest(tmp_path / "missing")
    with pytest.raises(FileNotReadable, match="Is a directory"):
        store.file_digest(tmp_path)


@pytest.mark.usefixtures("later")
def test_damaged_stamps_cost_one_more_hash(store: Store, model: Path) -> None:
    """A stamp that does not check is not believed."""
    reads(store, model)
    (stamp,) = (store.root / "stamps").iterdir()
    stamp.write_bytes(stamp.read_bytes().replace(digest(b"weights").encode(), digest(b"other").encode()))
    assert reads(store, model)
    assert not reads(store, model)
