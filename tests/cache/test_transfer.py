"""Pushes and pulls: what travels, damage on the way, and kill -9 at every system call."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import hubserver
import pytest
import transferring
from collecting import reach
from transferring import NAME, NEW, OLD, publish

from ltx_cache.blobref import BlobRef
from ltx_cache.canonical import canonical
from ltx_cache.errors import (
    BadEntry,
    BadName,
    MissingBlob,
    RemoteFailed,
    StorageFull,
    StoreNotWritable,
    WrongBytes,
)
from ltx_cache.folder_remote import FolderRemote
from ltx_cache.receive import Progress, fetch
from ltx_cache.remote import CARD_LIMIT, Publication, Remote, TooLarge, encode_pointer
from ltx_cache.store import Store
from ltx_cache.transfer import Transfer, pull, push
from ltx_cache.verify import verify


@pytest.fixture
def remote(tmp_path: Path) -> FolderRemote:
    """An empty remote."""
    return FolderRemote(tmp_path / "remote")


def send(store: Store, remote: FolderRemote, name: str = NAME, extra: Iterable[bytes] = ()) -> Transfer:
    """Push the store's bundle."""
    data = store.open(store.ref(NAME)).read_bytes()
    return push(store, remote, Publication(name, data), reach, extra)


def receive(store: Store, remote: Remote, name: str = NAME, progress: Progress | None = None) -> Transfer:
    """Pull a bundle by its name."""
    manifest = remote.read(name)
    assert manifest is not None
    return pull(store, remote, manifest, reach, progress)


@pytest.fixture
def other(tmp_path: Path) -> Store:
    """A second store."""
    return Store(tmp_path / "other")


@pytest.fixture
def pushed(store: Store, remote: FolderRemote) -> BlobRef:
    """A bundle in the remote."""
    publish(store, OLD)
    send(store, remote)
    return store.ref(NAME)


def test_a_bundle_travels(pushed: BlobRef, remote: FolderRemote, store: Store, other: Store) -> None:
    """All of it arrives, and progress ends at the whole."""
    told: list[tuple[int, int]] = []
    done = receive(other, remote, progress=lambda *counts: told.append(counts))
    assert (done.manifest, done.blobs, done.size) == (pushed, 3, done.total)
    assert told[-1] == (sum(map(len, OLD)),) * 2
    assert [
        other.open(ref, paranoid=True).read_bytes() for ref in reach(other.open(pushed).read_bytes())
    ] == list(OLD)
    assert not list((other.root / "partial").iterdir())


def test_only_what_is_lacking_travels(
    pushed: BlobRef, remote: FolderRemote, store: Store, other: Store
) -> None:
    """A second bundle sends its own blobs alone; the same bundle again sends nothing."""
    receive(other, remote)
    publish(store, NEW)
    done = send(store, remote, "second")
    assert (done.blobs, done.size) == (2, len(NEW[1]) + store.ref(NAME).size)
    assert send(store, remote, "second").blobs == 0
    done = receive(other, remote, "second")
    assert (done.blobs, done.size) == (2, len(NEW[1]) + store.ref(NAME).size)
    assert receive(other, remote, "second").blobs == 0
    assert remote.names() == [NAME, "second"]


def test_extra_blobs_go_along(store: Store, remote: FolderRemote) -> None:
    """What the manifest doesn't name can be sent with it."""
    publish(store, OLD)
    send(store, remote, extra=[b"extra"])
    assert b"".join(remote.get(BlobRef.of(b"extra").sha256, 0)) == b"extra"


def test_a_name_leads_nowhere_else(pushed: BlobRef, remote: FolderRemote) -> None:
    """A pointer is a file of its folder."""
    assert remote.read("bundel") is None
    with pytest.raises(BadName):
        remote.read("../bundle")


def test_damage_in_the_remote_is_refused_and_thrown_away(
    pushed: BlobRef, remote: FolderRemote, other: Store, tmp_path: Path
) -> None:
    """Wrong bytes of the right size become no blob and no start for the next try."""
    blob = BlobRef.of(OLD[0])
    (tmp_path / "remote" / "blobs" / blob.sha256).write_bytes(b"x" * blob.size)
    for _ in range(2):
        with pytest.raises(WrongBytes, match=blob.sha256):
            receive(other, remote)
    assert not other.has(blob)
    assert not list((other.root / "partial").iterdir())
    (tmp_path / "remote" / "blobs" / blob.sha256).write_bytes(OLD[0])
    assert receive(other, remote).manifest == pushed


def test_a_damaged_blob_is_repaired_by_a_pull(pushed: BlobRef, remote: FolderRemote, other: Store) -> None:
    """What the store finds damaged comes anew."""
    receive(other, remote)
    path = other.open(BlobRef.of(OLD[1]))
    path.chmod(0o644)
    path.write_bytes(b"x" * len(OLD[1]))
    assert receive(other, remote).blobs == 1
    assert verify(other, reach).problems == ()


def test_a_blob_that_the_remote_lost_is_named(
    pushed: BlobRef, remote: FolderRemote, other: Store, tmp_path: Path
) -> None:
    """An incomplete remote is an error, and what did arrive stays."""
    (tmp_path / "remote" / "blobs" / BlobRef.of(OLD[1]).sha256).unlink()
    with pytest.raises(MissingBlob, match=BlobRef.of(OLD[1]).sha256):
        receive(other, remote)
    assert other.has(BlobRef.of(OLD[0]))


def test_a_damaged_pointer_is_refused(
    pushed: BlobRef, remote: FolderRemote, other: Store, tmp_path: Path
) -> None:
    """Pointers check themselves."""
    (tmp_path / "remote" / "bundles" / f"{NAME}.json").write_text("{}")
    with pytest.raises(BadEntry):
        receive(other, remote)


def test_what_others_have_damaged_stops_no_push(store: Store, remote: FolderRemote, tmp_path: Path) -> None:
    """Pointers that lead nowhere are left out of the README; files of other names are no bundles."""
    folder = tmp_path / "remote" / "bundles"
    folder.mkdir(parents=True)
    for name, data in transferring.DAMAGED.items():
        (folder / name).write_bytes(data)
    publish(store, OLD)
    data = store.open(store.ref(NAME)).read_bytes()
    push(store, remote, Publication(NAME, data, card=transferring.card), reach)
    assert (tmp_path / "remote" / "README.md").read_text() == NAME
    assert remote.names() == [NAME, "giant", "lost", "torn"]


def test_a_readme_is_never_cut(store: Store, remote: FolderRemote, tmp_path: Path) -> None:
    """One that is too long to add to is refused before anything is moved, and stays as it is."""
    readme = tmp_path / "remote" / "README.md"
    readme.parent.mkdir()
    publish(store, OLD)
    data = store.open(store.ref(NAME)).read_bytes()
    publication = Publication(NAME, data, card=lambda earlier, _: f"{earlier}x")
    readme.write_text("y" * CARD_LIMIT)
    push(store, remote, publication, reach)
    assert readme.stat().st_size == CARD_LIMIT + 1
    (readme.parent / "bundles" / f"{NAME}.json").unlink()
    with pytest.raises(TooLarge, match=rf"README\.md: it has more than {CARD_LIMIT} bytes"):
        push(store, remote, publication, reach)
    assert readme.stat().st_size == CARD_LIMIT + 1
    assert remote.names() == []


def test_a_giant_manifest_is_refused(remote: FolderRemote, other: Store, tmp_path: Path) -> None:
    """Its size is looked at before a byte travels."""
    (tmp_path / "remote" / "bundles").mkdir(parents=True)
    pointer = encode_pointer(BlobRef("0" * 64, 1 << 40))
    (tmp_path / "remote" / "bundles" / "giant.json").write_bytes(pointer)
    with pytest.raises(RemoteFailed, match="more than"):
        receive(other, remote, "giant")


class Unsteady(FolderRemote):
    """A remote that sends some bytes at a time, and fails after so many."""

    def __init__(self, root: Path, limit: int, piece: int = 3) -> None:
        super().__init__(root)
        self.limit, self.piece = limit, piece
        self.connections = 1
        self.sent: list[tuple[str, int]] = []

    def get(self, digest: str, offset: int) -> Iterator[bytes]:
        self.sent.append((digest, offset))
        data = b"".join(super().get(digest, offset))
        for start in range(0, len(data), self.piece):
            if self.limit <= 0:
                raise RemoteFailed("the connection was lost")
            self.limit -= self.piece
            yield data[start : start + self.piece]


def test_a_lost_connection_is_taken_up_where_it_broke(
    pushed: BlobRef, store: Store, other: Store, tmp_path: Path
) -> None:
    """No byte travels twice."""
    received, tries, offsets = 0, 0, set[int]()
    while True:
        unsteady = Unsteady(tmp_path / "remote", limit=12)
        tries += 1
        try:
            receive(other, unsteady)
        except RemoteFailed:
            received += 12
            continue
        finally:
            offsets |= {offset for _, offset in unsteady.sent}
        break
    assert tries > 3
    assert received <= pushed.size + sum(map(len, OLD)) <= received + 12
    assert len(offsets) > 3
    assert verify(other, reach).problems == ()


def test_room_is_needed_only_for_what_has_not_arrived(
    remote: FolderRemote, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier try has left takes no room a second time."""
    ref = BlobRef.of(OLD[0])
    remote.put([(ref, OLD[0])], lambda count: None)
    with other.receive(ref) as part:
        part.write(OLD[0][:5])
    usage = shutil.disk_usage(other.root)
    for free in (ref.size - 6, ref.size - 5):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        if free < ref.size - 5:
            with pytest.raises(StorageFull, match=f"{ref.size - 5} bytes are needed, {free} are free"):
                fetch(other, remote, [ref])
    assert fetch(other, remote, [ref]) == (1, ref.size - 5)


def test_an_error_ends_the_wait_for_other_processes(
    remote: FolderRemote, other: Store, tmp_path: Path
) -> None:
    """A pull that has failed doesn't wait for a blob that somebody else receives, however long that takes."""
    held, lost = BlobRef.of(OLD[0]), BlobRef.of(b"lost")
    remote.put([(held, OLD[0])], lambda count: None)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            fetch(other, remote, [held, lost])
        except MissingBlob as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    with other.lock(f"receive-{held.sha256}"):
        thread.start()
        thread.join(timeout=20)
        assert not thread.is_alive()
    assert [str(error) for error in caught] == [str(MissingBlob(lost.sha256, tmp_path / "remote"))]


class Short(FolderRemote):
    """A remote that ends before the end, or goes on after it."""

    def get(self, digest: str, offset: int) -> Iterator[bytes]:
        yield b"".join(super().get(digest, offset))[:-1]


class Endless(FolderRemote):
    """A remote that never stops sending."""

    def get(self, digest: str, offset: int) -> Iterator[bytes]:
        while True:
            yield b"x" * 5


def test_a_remote_that_ends_early_or_never(pushed: BlobRef, other: Store, tmp_path: Path) -> None:
    """Too few bytes are said to be too few; too many are thrown away at once."""
    with pytest.raises(RemoteFailed, match=r"sent \d+ of the \d+ bytes"):
        receive(other, Short(tmp_path / "remote"))
    for path in (other.root / "partial").iterdir():
        path.write_bytes(b"x" * 10_000)  # more than the blob has: begun anew
    with pytest.raises(WrongBytes):
        receive(other, Endless(tmp_path / "remote"))
    assert not list((other.root / "partial").iterdir())


def test_a_source_that_lies_is_not_put(remote: FolderRemote, tmp_path: Path) -> None:
    """A remote folder takes no blob under a wrong name."""
    with pytest.raises(WrongBytes):
        remote.put([(BlobRef.of(b"right"), b"wrong")], lambda count: None)
    with pytest.raises(MissingBlob):
        remote.move(Publication("bundle", b"right"))
    assert remote.names() == []
    assert not list((tmp_path / "remote" / "tmp").iterdir())


def test_a_remote_that_cannot_be_made(tmp_path: Path) -> None:
    """The path and the reason are in the message."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreNotWritable, match="Not a directory"):
        FolderRemote(tmp_path / "file").put([(BlobRef.of(b""), b"")], lambda count: None)


PULLER = """
import sys
from pathlib import Path
from collecting import reach
from ltx_cache.folder_remote import FolderRemote
from ltx_cache.store import Store
from ltx_cache.transfer import pull
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
remote = FolderRemote(Path(sys.argv[2]))
print(pull(store, remote, remote.read("bundle"), reach).size)
"""


def test_several_processes_pull_the_same(pushed: BlobRef, other: Store, tmp_path: Path) -> None:
    """All succeed, and each byte travels once."""
    command = [sys.executable, "-c", PULLER, str(other.root), str(tmp_path / "remote")]
    pipe = subprocess.PIPE
    pullers = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parent)
        for _ in range(4)
    ]
    for puller in pullers:
        assert puller.stdout is not None
        assert puller.stdout.readline() == "ready\n"
    for puller in pullers:
        assert puller.stdin is not None
        puller.stdin.write("go\n")
        puller.stdin.flush()
    sizes = [int(puller.communicate()[0]) for puller in pullers]
    assert sum(sizes) == pushed.size + sum(map(len, OLD))
    assert verify(other, reach).problems == ()


@pytest.fixture(scope="module", params=["push", "pull", "push to the Hub", "pull from the Hub"])
def crashed(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[Path], list[str], str | None]]:
    """What killed transfers leave, the calls of one that was not, and the Hub if they were with one."""
    memory = Path("/dev/shm")
    direction, _, place = request.param.partition(" ")
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        hubserver.serve(lfs_from=100) as hub,
    ):
        env = hubserver.environment(hub, Path(folder) / "hf") if place else None
        command = [sys.executable, transferring.__file__, f"{folder}/roots", direction]
        calls = subprocess.check_output(command, text=True, env=env).split()
        roots = sorted(Path(folder, "roots").iterdir(), key=lambda path: int(path.name))
        with pytest.MonkeyPatch.context() as patch:
            hubserver.point_at(hub, patch)
            yield direction, roots, calls, hub.endpoint if place else None


def manifests(blobs: Iterable[bytes]) -> bytes:
    return canonical([BlobRef.of(data).json() for data in blobs])


def test_a_killed_transfer_leaves_the_old_bundle_or_the_new(
    crashed: tuple[str, list[Path], list[str], str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides are whole at every point, and the next try comes to the end."""
    direction, roots, calls, endpoint = crashed
    assert len(roots) == len(calls) + 1
    assert Counter(calls)["replace"] >= (3 if endpoint is None or direction == "pull" else 0)
    assert Counter(calls)["request"] >= (0 if endpoint is None else 5)
    make = transferring.remote
    monkeypatch.setattr(transferring, "remote", lambda root: make(root, endpoint))
    seen = set()
    for root in roots:
        store = Store(root / ("store" if direction == "push" else "other"))
        assert verify(store, reach).problems == (), root
        reader = Store(root / "reader")
        found = reader.open(receive(reader, transferring.remote(root)).manifest).read_bytes()
        named = store.open(store.ref(NAME)).read_bytes()
        seen.add(found if direction == "push" else named)
        (transferring.send if direction == "push" else transferring.receive)(root)
        assert verify(store, reach).problems == (), root
        assert store.open(store.ref(NAME)).read_bytes() == manifests(NEW), root
        last = Store(root / "last")
        assert receive(last, transferring.remote(root)).manifest == store.ref(NAME), root
    assert seen == {manifests(OLD), manifests(NEW)}
