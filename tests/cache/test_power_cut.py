"""The power fails: whatever the disk has kept by then, the store is whole and the next command works."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import collecting
import pytest
import transferring
from collecting import key, reach
from power_disk import Call, Disk, Tree, all_crashes, read_tree, visible, write_tree
from power_recorder import Recorder
from transferring import NAME, NEW, OLD, publish

from ltx_cache import gc
from ltx_cache.blobref import BlobRef
from ltx_cache.errors import WrongBytes
from ltx_cache.folder_remote import FolderRemote
from ltx_cache.gc import Limits, collect
from ltx_cache.store import Hit, Store
from ltx_cache.verify import verify

Tell = Callable[[str], None]


def content(store: Store) -> tuple[bytes, ...] | None:
    """What the blobs of the bundle hold; None without a bundle."""
    if not store.refs():
        return None
    named = reach(store.open(store.ref(NAME)).read_bytes())
    return tuple(store.open(ref).read_bytes() for ref in named)


def sound(store: Store) -> bool:
    return verify(store, reach).problems == ()


def build(root: Path, tell: Tell) -> None:
    """Store a program under its key, then the bundle."""
    store = Store(root / "store")
    with store.lock("build"), store.writer() as w:
        for byte in NEW[1]:
            w.write(bytes([byte]))
        store.put_entry(key(NEW[1]), "new", [w.commit()])
    tell("entry")
    publish(store, NEW)
    tell("bundle")


def check_build(root: Path, told: frozenset[str]) -> None:
    """What was told is there; the rest is old or new."""
    store = Store(root / "store")
    assert sound(store)
    assert content(store) in ([NEW] if "bundle" in told else [None, OLD, NEW])
    assert "entry" not in told or isinstance(store.lookup(key(NEW[1])), Hit)


def bundle(root: Path) -> None:
    """An old bundle is there."""
    publish(Store(root / "store"), OLD)


def garbage(root: Path) -> None:
    """A bundle, and all kinds of garbage."""
    collecting.prepare(Store(root / "store"))


def collection(root: Path, tell: Tell) -> None:
    """Collect."""
    collect(Store(root / "store"), reach, Limits())
    tell("collected")


def check_collection(root: Path, told: frozenset[str]) -> None:
    """No entry and no bundle lacks a blob because of it; what was told to be gone stays gone."""
    store = Store(root / "store")
    broken = {problem.name for problem in verify(store, reach).problems}
    before = {f"program/{key(name).digest}" for name in (b"lost", b"damaged")}
    assert broken <= (set() if "collected" in told else before)
    assert isinstance(store.lookup(key(collecting.BUNDLE[0])), Hit)
    assert "collected" not in told or not store.has(BlobRef.of(b"loose"))


def remote_old(root: Path) -> None:
    """The remote has the old bundle, the store the new one."""
    transferring.prepare(root, "push")


def remote_new(root: Path) -> None:
    """The remote has the new bundle, the other store the old one."""
    transferring.prepare(root, "pull")


def send(root: Path, tell: Tell) -> None:
    """Push."""
    transferring.send(root)
    tell("sent")


def check_send(root: Path, told: frozenset[str]) -> None:
    """The remote shows the old bundle or the new one, whole."""
    reader = Store(root / "reader")
    remote = FolderRemote(root / "remote")
    manifest = remote.read(NAME)
    assert manifest
    transferring.pull(reader, remote, manifest, reach)
    reader.set_ref(NAME, manifest)
    assert content(reader) in ([NEW] if "sent" in told else [OLD, NEW])
    shutil.rmtree(reader.root)


def receive(root: Path, tell: Tell) -> None:
    """Pull; pieces that the crash has damaged are thrown away, and come with the second try."""
    try:
        transferring.receive(root)
    except WrongBytes:
        transferring.receive(root)
    tell("received")


def check_receive(root: Path, told: frozenset[str]) -> None:
    """The other store shows the old bundle or the new one, whole."""
    other = Store(root / "other")
    assert sound(other)
    assert content(other) in ([NEW] if "received" in told else [OLD, NEW])


@dataclass(frozen=True)
class Scenario:
    """What is there before, what is done, and what must hold after a crash."""

    prepare: Callable[[Path], None]
    work: Callable[[Path, Tell], None]
    check: Callable[[Path, frozenset[str]], None]
    told: frozenset[str]


SCENARIOS = {
    "first build": Scenario(lambda root: None, build, check_build, frozenset({"entry", "bundle"})),
    "build": Scenario(bundle, build, check_build, frozenset({"entry", "bundle"})),
    "gc": Scenario(garbage, collection, check_collection, frozenset({"collected"})),
    "push": Scenario(remote_old, send, check_send, frozenset({"sent"})),
    "pull": Scenario(remote_new, receive, check_receive, frozenset({"received"})),
}


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory: the disk that loses power is a model, so real flushes prove nothing."""
    there = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=there if there.is_dir() else None) as folder:
        yield Path(folder)


def recorded(scenario: Scenario, root: Path) -> tuple[Disk, list[Call]]:
    """The disk before some work, and the calls of the work."""
    root.mkdir()
    scenario.prepare(root)
    before = Disk.of(root)
    with Recorder(root, copy.deepcopy(before)) as recorder:
        scenario.work(root, recorder.told)
    assert recorder.disk.now() == read_tree(root), "a call was missed"
    return before, recorder.calls


def faults(scenario: Scenario, memory: Path, left_out: str = "") -> Iterator[str]:
    """Crash everywhere, look, work again, look again; what went wrong. Calls of one kind may be left out."""
    before, calls = recorded(scenario, memory / "work")
    calls = [call for call in calls if call.kind != left_out]
    for number, (tree, told) in enumerate(all_crashes(before, calls)):
        yield from fault(scenario, tree, told, memory / str(number))


def fault(scenario: Scenario, tree: Tree, told: frozenset[str], root: Path) -> Iterator[str]:
    """What is wrong after one crash."""
    write_tree(tree, root)
    try:
        scenario.check(root, told)
        scenario.work(root, lambda note: None)
        scenario.check(root, scenario.told)
    except Exception as error:
        yield f"{root.name}, told {set(told) or 'nothing'}: {error!r}"
    shutil.rmtree(root)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_power_cut_leaves_a_whole_store(name: str, memory: Path) -> None:
    """Nothing wrong is visible, nothing is lost that was told to be done, and the work can be done again."""
    assert list(faults(SCENARIOS[name], memory)) == []


@pytest.mark.parametrize("name", ["first build", "build", "push", "pull"])
@pytest.mark.parametrize("left_out", ["sync", "settle"])
def test_a_flush_that_is_left_out_is_found(name: str, left_out: str, memory: Path) -> None:
    """The model finds what it is made for: files or folders that nobody flushed."""
    assert any(faults(SCENARIOS[name], memory, left_out))


def test_a_wrong_order_is_found(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection that removed blobs before the entries that name them would be caught."""
    found = gc.garbage

    def swapped(*args: Any) -> gc.Garbage:
        garbage = found(*args)
        return replace(garbage, entries=garbage.blobs, blobs=garbage.entries)

    monkeypatch.setattr(gc, "garbage", swapped)
    assert any(faults(SCENARIOS["gc"], memory))


@pytest.mark.parametrize("name", ["first build", "push", "pull"])
def test_what_a_killed_process_did_not_flush_is_flushed(name: str, memory: Path) -> None:
    """A kill leaves names that are there and not on the disk; the next process doesn't rely on them."""
    scenario = SCENARIOS[name]
    before, calls = recorded(scenario, memory / "whole")
    for count in range(len(calls)):
        disk = copy.deepcopy(before)
        for call in calls[:count]:
            disk.apply(call)
        root = memory / f"killed-{count}"
        write_tree(disk.now(), root)
        with Recorder(root, disk) as recorder:
            scenario.work(root, recorder.told)
        different = {visible(tree): tree for tree in disk.crashes()}
        for number, tree in enumerate(different.values()):
            assert not list(fault(scenario, tree, scenario.told, memory / f"{count}-{number}")), count
