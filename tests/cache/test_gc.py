"""Collecting garbage: what stays, what goes, beside readers, and kill -9 at every system call."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import collecting
import pytest
from collecting import BUNDLE, UNUSED, key, reach

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadEntry, BundleUnreadable, StoreInUse
from ltx_cache.gc import DAY, Limits, collect, garbage
from ltx_cache.key import Key
from ltx_cache.store import Hit, Store
from ltx_cache.verify import verify


@pytest.fixture
def filled(store: Store) -> Store:
    """A store with a bundle, results in no bundle, and litter."""
    collecting.prepare(store)
    return store


def hits(store: Store) -> set[bytes]:
    """Results that are found."""
    names = (*BUNDLE, *UNUSED, b"lost", b"damaged")
    return {name for name in names if isinstance(store.lookup(key(name)), Hit)}


def blobs(store: Store) -> set[str]:
    return {path.name for path in (store.root / "blobs").glob("*/*")}


def aged(store: Store, data: bytes, seconds: float) -> None:
    """Let a result be so old."""
    written = time.time() - seconds
    os.utime(store.root / "entries" / "program" / f"{key(data).digest}.json", (written, written))


def test_without_limits_only_bundles_stay(filled: Store) -> None:
    """What the ref reaches stays with the results made of it; entries without blobs stay."""
    found = collect(filled, reach, Limits())
    assert hits(filled) == {BUNDLE[0]}
    assert blobs(filled) == {BlobRef.of(data).sha256 for data in BUNDLE} | {filled.ref("bundle").sha256}
    assert isinstance(filled.lookup(Key("table", ())), Hit)
    assert len(found.entries) == len(UNUSED) + 2
    assert found.size == sum(map(len, UNUSED)) + len(b"loose")
    assert found.kept == found.used == sum(map(len, BUNDLE)) + filled.ref("bundle").size
    assert verify(filled, reach).problems == ()


def test_litter_goes(filled: Store) -> None:
    """Temporary files of dead processes, quarantine, locks and stamps of lost blobs; never the lease file."""
    stamp = filled.root / "stamps" / f"file-{'0' * 64}.json"
    stamp.write_text("{}")
    collect(filled, reach, Limits())
    assert not list((filled.root / "tmp").iterdir())
    assert not list((filled.root / "quarantine").iterdir())
    assert [path.name for path in (filled.root / "locks").iterdir()] == ["in-use.lease"]
    assert {path.stem for path in (filled.root / "stamps").iterdir()} == blobs(filled) | {stamp.stem}


def test_temporary_files_of_the_living_stay(filled: Store) -> None:
    """Of this process, and of another host until they are a day old; what no process names, too."""
    tmp = filled.root / "tmp"
    host = os.uname().nodename
    names = [f"{host}-{os.getpid()}-00", "elsewhere-1-00", "notes", "elsewhere-2-00"]
    for name in names:
        (tmp / name).write_text("")
    old = time.time() - 2 * DAY
    os.utime(tmp / names[3], (old, old))
    collect(filled, reach, Limits())
    assert {path.name for path in tmp.iterdir()} == set(names[:3])


def test_keep_counts_the_latest(filled: Store) -> None:
    """The results of bundles don't count."""
    collect(filled, reach, Limits(keep=2))
    assert hits(filled) == {BUNDLE[0], b"latest", b"older"}


def test_older_than(filled: Store) -> None:
    """A result goes at that age."""
    for days, data in enumerate(reversed(UNUSED)):
        aged(filled, data, days * DAY + 100)
    collect(filled, reach, Limits(older_than=1.5 * DAY))
    assert hits(filled) == {BUNDLE[0], b"latest", b"older"}


def test_max_size_counts_bundles_first(filled: Store) -> None:
    """The latest results that still fit stay, and no earlier one after the first that doesn't."""
    used = garbage(filled, reach, Limits()).used
    assert garbage(filled, reach, Limits(max_size=used + 10)).kept == used + len(b"latest")
    assert garbage(filled, reach, Limits(max_size=used + 11)).kept == used + len(b"latest" + b"older")
    assert garbage(filled, reach, Limits(max_size=0)).kept == used
    collect(filled, reach, Limits(max_size=used + 6))
    assert hits(filled) == {BUNDLE[0], b"latest"}


def test_all_limits_bind(filled: Store) -> None:
    """A result stays that is within every limit."""
    big = 10**9
    assert len(garbage(filled, reach, Limits(keep=3, older_than=big, max_size=big)).entries) == 2
    assert len(garbage(filled, reach, Limits(keep=1, older_than=big, max_size=big)).entries) == 4
    assert len(garbage(filled, reach, Limits(keep=3, older_than=big, max_size=0)).entries) == 5


def test_a_forgotten_bundle_goes_and_shared_blobs_stay(filled: Store) -> None:
    """After `remove_ref` a blob stays only if another ref reaches it."""
    shared = BlobRef.of(BUNDLE[0])
    filled.set_ref("other", filled.put_bytes(b'[{"sha256":"%s","size":7}]' % shared.sha256.encode()))
    filled.remove_ref("bundle")
    collect(filled, reach, Limits())
    assert blobs(filled) == {shared.sha256, filled.ref("other").sha256}


def test_looking_removes_nothing(filled: Store) -> None:
    """What a dry run tells is what a collection then removes."""
    before = {path for path in filled.root.rglob("*") if path.is_file()}
    found = garbage(filled, reach, Limits(keep=1))
    assert {path for path in filled.root.rglob("*") if path.is_file()} == before
    assert collect(filled, reach, Limits(keep=1)) == found
    after = {path for path in filled.root.rglob("*") if path.is_file()}
    assert before - after == {*found.entries, *found.blobs, *found.others}
    again = garbage(filled, reach, Limits(keep=1))
    assert (again.entries, again.blobs, again.others) == ((), (), ())


def test_an_unreadable_bundle_stops_the_collection(filled: Store) -> None:
    """As long as it can't be told what a bundle needs, everything may be needed."""
    before = blobs(filled)
    manifest = filled.open(filled.ref("bundle"))
    manifest.rename(filled.root / "aside")
    with pytest.raises(BundleUnreadable, match="ltxbuild rm bundle"):
        collect(filled, reach, Limits())
    (filled.root / "refs" / "bundle.json").write_text("{}")
    with pytest.raises(BadEntry):
        collect(filled, reach, Limits())
    assert blobs(filled) == before - {manifest.name}


READER = """
import sys
from pathlib import Path
from ltx_cache.blobref import BlobRef
from ltx_cache.store import Store
store = Store(Path(sys.argv[1]))
with store.in_use():
    print("reading", flush=True)
    sys.stdin.readline()
    print(store.open(BlobRef(sys.argv[2], 6), paranoid=True).read_bytes().decode(), flush=True)
    store.set_ref("new", store.put_bytes(b"[]"))
"""


def test_nothing_goes_while_somebody_reads(filled: Store) -> None:
    """A collection waits for a reader in another process, and sees what that has made meanwhile."""
    blob = BlobRef.of(b"latest")
    command = [sys.executable, "-c", READER, str(filled.root), blob.sha256]
    pipe = subprocess.PIPE
    reader = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "reading\n"
    waiting = threading.Event()
    collector = threading.Thread(
        target=collect, args=(filled, reach, Limits()), kwargs={"wait": 60, "on_wait": waiting.set}
    )
    collector.start()
    assert waiting.wait(10)
    assert filled.has(blob)
    assert reader.communicate("go\n")[0] == "latest\n"
    collector.join()
    assert not filled.has(blob)
    assert filled.has(filled.ref("new"))


def test_a_clock_that_went_back_costs_nothing(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What seems to come from the future is not old, is found, and can be replaced."""
    past = time.time() - 10 * 365 * DAY
    monkeypatch.setattr(time, "time", lambda: past)
    before = hits(filled)
    assert not {path.stem for path in garbage(filled, reach, Limits(older_than=DAY)).entries} & {
        key(name).digest for name in before
    }
    filled.put_entry(key(b"latest"), None, [filled.put_bytes(b"latest")])
    collect(filled, reach, Limits(older_than=DAY))
    assert hits(filled) == before
    assert verify(filled, reach).problems == ()


def test_a_store_in_use_is_left_alone(filled: Store) -> None:
    """When the time is up nothing has been removed, and the error says who to look for."""
    before = blobs(filled)
    with (
        filled.in_use(),
        pytest.raises(StoreInUse, match=r"after 0\.1 s: nothing was removed") as caught,
    ):
        collect(filled, reach, Limits(), wait=0.1)
    assert "in-use.lease" in str(caught.value)
    assert blobs(filled) == before


READERS = """
import sys, time
from pathlib import Path
from ltx_cache.store import Hit, Store
from collecting import BUNDLE, key
store, stop, end = Store(Path(sys.argv[1])), Path(sys.argv[2]), time.monotonic() + 60
print("reading", flush=True)
while not stop.exists() and time.monotonic() < end:
    with store.in_use():
        found = store.lookup(key(b"latest"))
        if isinstance(found, Hit):
            time.sleep(0.002)
            for blob in found.blobs:
                store.open(blob, paranoid=True).read_bytes()
        store.open(store.ref("bundle"), paranoid=True).read_bytes()
        store.put_entry(key(b"latest"), None, [store.put_bytes(b"latest"), store.put_bytes(BUNDLE[1])])
    time.sleep(0.05)
"""


def test_readers_never_see_a_collection(filled: Store, tmp_path: Path) -> None:
    """Four processes look up, read and write again while everything is collected over and over."""
    stop = tmp_path / "stop"
    command = [sys.executable, "-c", READERS, str(filled.root), str(stop)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    readers = [subprocess.Popen(command, env=env, text=True, **pipes) for _ in range(4)]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
    collections = 0
    while collections < 20 and all(reader.poll() is None for reader in readers):
        with suppress(StoreInUse):
            collect(filled, reach, Limits(), wait=1)
            collections += 1
    stop.touch()
    assert [reader.communicate()[1] for reader in readers] == [""] * 4
    assert collections == 20
    assert verify(filled, reach).problems == ()


@pytest.fixture(scope="module")
def crashed() -> Iterator[tuple[list[Path], list[str]]]:
    """Stores left by killed collections, and the calls of one that was not."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        calls = subprocess.check_output([sys.executable, collecting.__file__, folder], text=True).split()
        yield sorted(Path(folder).iterdir(), key=lambda path: int(path.name)), calls


def test_a_collection_was_killed_at_every_call(crashed: tuple[list[Path], list[str]]) -> None:
    """It makes the calls that this test is about."""
    stores, calls = crashed
    assert len(stores) == len(calls) + 1
    counts = Counter(calls)
    assert counts["unlink"] >= 10
    assert counts["fsync"] >= 5


def test_a_killed_collection_leaves_a_whole_store(crashed: tuple[list[Path], list[str]]) -> None:
    """No entry and no ref lacks a blob because of it, and the next collection comes to the same end."""
    ends = set()
    for root in crashed[0]:
        store = Store(root)
        broken = {problem.name for problem in verify(store, reach).problems}
        assert broken <= {f"program/{key(name).digest}" for name in (b"lost", b"damaged")}, root
        assert hits(store) >= {BUNDLE[0], b"latest"}, root
        collect(store, reach, collecting.LIMITS)
        assert verify(store, reach).problems == (), root
        ends.add(frozenset(path.relative_to(root) for path in root.rglob("*") if path.is_file()))
    assert len(ends) == 1
