"""kill -9 at every system call of a small build."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import crashing
import pytest

from ltx_cache.blobref import BlobRef
from ltx_cache.store import Hit, Store


@pytest.fixture(scope="module")
def crashed() -> Iterator[tuple[list[Path], list[str]]]:
    """Stores left by killed processes, and the calls of one that was not."""
    # A kill doesn't empty the page cache, so memory will do; on a disk, thousands of flushes take a while.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        calls = subprocess.check_output([sys.executable, crashing.__file__, folder], text=True).split()
        yield sorted(Path(folder).iterdir()), calls


def check_what_is_visible(store: Store) -> str:
    """Everything visible is whole; returns the value of the entry."""
    for path in (store.root / "blobs").glob("*/*"):
        store.open(BlobRef(path.name, path.stat().st_size), paranoid=True)
    manifest = store.open(store.ref("bundle")).read_bytes()
    assert manifest in (crashing.OLD, crashing.NEW)
    found = store.lookup(crashing.KEY)
    assert isinstance(found, Hit)
    content = store.open(found.blobs[0]).read_bytes()
    assert (found.value, content) in [("old", crashing.OLD), ("new", b"".join(crashing.PARTS))]
    # The ref moves last: whoever sees the new manifest finds all that it names.
    assert manifest == crashing.OLD or found.value == "new"
    return str(found.value)


def test_every_kind_of_call_was_hit(crashed: tuple[list[Path], list[str]]) -> None:
    """The build makes the calls that this test is about, and each was killed once plain and once torn."""
    stores, calls = crashed
    counts = Counter(calls)
    assert counts["replace"] >= 5
    assert counts["fsync"] >= 2 * counts["replace"]
    assert counts["write"] >= counts["replace"] + 1
    assert len(stores) == 2 * len(calls) + 1


def test_nothing_half_made_is_visible_and_the_next_build_works(crashed: tuple[list[Path], list[str]]) -> None:
    """After a kill the store opens, shows old or new and nothing else, and takes the work again."""
    values = set()
    for root in crashed[0]:
        values.add(check_what_is_visible(Store(root)))
        crashing.work(Store(root))
        assert check_what_is_visible(Store(root)) == "new", root
        assert not (root / "quarantine").exists(), root
    assert values == {"old", "new"}


def test_what_a_kill_leaves_can_be_told(crashed: tuple[list[Path], list[str]]) -> None:
    """Temporary files of dead processes carry host and process in their names, and lie in tmp/ alone."""
    left = [path for root in crashed[0] for path in (root / "tmp").iterdir()]
    assert left
    for path in left:
        host, process, random = path.name.rsplit("-", 2)
        assert host
        assert process.isdigit()
        assert len(random) == 12


def test_the_log_is_kept(crashed: tuple[list[Path], list[str]]) -> None:
    """The log of a build that was killed after it wrote one is still there."""
    stores, calls = crashed
    # The first mkdir is of the log's folder; the next one, after the log was written, is the lock's.
    before_log = calls.index("mkdir", calls.index("mkdir") + 1)
    logs = [root / "logs/build.log" for root in stores if int(root.name.removesuffix("-torn")) >= before_log]
    assert len(logs) > len(stores) // 2
    assert all(log.read_text() == "compiling" for log in logs)
