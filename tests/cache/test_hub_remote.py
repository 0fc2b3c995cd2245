"""Repositories on the Hub as remotes, over real HTTP, with what goes wrong there.

Against a local server. With LTX_TEST_HUB=ORG and a token that may write there, the tests that use `place`
make repositories ORG/ltxbuild-test-* on the real Hub instead, and delete them.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import hubserver
import pytest
from collecting import reach
from hubserver import Fault, Hub
from transferring import DAMAGED, NAME, NEW, OLD, publish

from ltx_cache import hub as talking
from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadAddress, MissingBlob, RemoteFailed, ToolMissing, UnknownBundle, WrongBytes
from ltx_cache.hub_remote import HubRemote
from ltx_cache.receive import fetch
from ltx_cache.remote import Publication
from ltx_cache.store import Store
from ltx_cache.transfer import Transfer, pull, push
from ltx_cache.verify import verify

REPO = "org/repo"
BIG = tuple(bytes([n]) * 300_000 for n in range(3))
REAL = os.environ.get("LTX_TEST_HUB")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A local server."""
    with hubserver.serve(part_size=100_000) as server:
        hubserver.point_at(server, monkeypatch)
        yield server


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Callable[..., HubRemote]]:
    """Makes remotes at one repository, on the local server or the real Hub."""
    if REAL is None:
        request.getfixturevalue("hub")
        yield lambda revision=None: HubRemote(REPO, revision)
        return
    import huggingface_hub

    name = f"{REAL}/ltxbuild-test-{uuid.uuid4().hex[:12]}"
    try:
        yield lambda revision=None: HubRemote(name, revision)
    finally:
        huggingface_hub.HfApi().delete_repo(name, missing_ok=True)


@pytest.fixture
def other(tmp_path: Path) -> Store:
    """A second store."""
    return Store(tmp_path / "other")


def card(earlier: str | None, manifests: Mapping[str, bytes]) -> str:
    """A README that tells the names."""
    return " ".join(sorted(manifests))


def send(store: Store, remote: HubRemote, name: str = NAME, contents: tuple[bytes, ...] = OLD) -> Transfer:
    """Push a bundle of these blobs."""
    publish(store, contents)
    data = store.open(store.ref(NAME)).read_bytes()
    remote.create(private=False)
    return push(store, remote, Publication(name, data, {"a" * 64: b"signature"}, card), reach)


def receive(store: Store, remote: HubRemote, name: str = NAME) -> Transfer:
    """Pull a bundle by its name."""
    manifest = remote.read(name)
    assert manifest is not None
    return pull(store, remote, manifest, reach)


def test_bundles_travel_and_share_blobs(place: Callable[..., HubRemote], store: Store, other: Store) -> None:
    """A second bundle sends its own blobs alone; both arrive; the same again is no commit."""
    send(store, place())
    done = send(store, place(), "second", NEW)
    assert (done.blobs, done.size) == (2, len(NEW[1]) + done.manifest.size)
    before = place().state()
    assert send(store, place(), "second", NEW).blobs == 0
    remote = place()
    assert remote.state() == before
    assert remote.names() == [NAME, "second"]
    assert receive(other, remote, "second").manifest == done.manifest
    assert receive(other, remote).blobs == 2
    assert remote.signers(done.manifest.sha256) == ["a" * 64]
    assert remote.signature(done.manifest.sha256, "a" * 64) == b"signature"
    assert verify(other, reach).problems == ()


def test_a_branch_is_made_and_a_commit_pins(
    place: Callable[..., HubRemote], store: Store, other: Store
) -> None:
    """What a commit has stays what it was; nothing can be pushed to it."""
    send(store, place("next"))
    assert place().names() == []
    pinned = place(place("next").state())
    send(store, place("next"), NAME, NEW)
    assert pinned.fixed
    assert pinned.read(NAME) != place("next").read(NAME)
    assert receive(other, pinned).manifest == pinned.read(NAME)
    with pytest.raises(BadAddress, match="names a commit"):
        pinned.create(private=False)


def test_two_who_push_at_once_both_arrive(place: Callable[..., HubRemote], store: Store) -> None:
    """Whoever comes second builds on the first, in pointers and README."""
    send(store, place())
    slow = place()
    slow.create(private=False)
    data = store.put_bytes(b"slow")
    manifest = b'[{"sha256":"%s","size":4}]' % data.sha256.encode()
    assert slow.sizes([data.sha256]) == {}
    send(store, place(), "quick", NEW)
    push(store, slow, Publication("slow", manifest, card=card), reach)
    assert place().names() == [NAME, "quick", "slow"]
    assert b"".join(slow.get(data.sha256, 0)) == b"slow"


def test_many_who_push_at_once(hub: Hub, tmp_path: Path) -> None:
    """Every one ends up in the repository, and in its README."""
    HubRemote(REPO).create(private=False)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            store = Store(tmp_path / str(number))
            send(store, HubRemote(REPO), f"bundle-{number}", (b"shared" * 100, b"%d" % number))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    names = [f"bundle-{number}" for number in range(4)]
    assert HubRemote(REPO).names() == names
    files = hub.repos[REPO].files("main") or {}
    assert files["README.md"].decode().split() == names


def test_what_was_uploaded_is_not_uploaded_again(hub: Hub, store: Store) -> None:
    """A push that failed at its commit sends no blob a second time, and nothing was visible."""
    hub.faults = [Fault("POST", "/commit/", status=500, times=99)]
    with pytest.raises(RemoteFailed, match="the Hub answered 500"):
        send(store, HubRemote(REPO), contents=BIG)
    uploads = len(hub.paths("PUT"))
    assert uploads == 10  # three blobs in three parts, and the manifest
    assert HubRemote(REPO).names() == []
    hub.faults = []
    send(store, HubRemote(REPO), contents=BIG)
    assert len(hub.paths("PUT")) == uploads
    assert HubRemote(REPO).names() == [NAME]


@pytest.mark.parametrize("status", [409, 412, 429, 500, 503])
@pytest.mark.parametrize("late", [False, True])
def test_a_commit_that_fails_is_tried_again(hub: Hub, store: Store, status: int, late: bool) -> None:
    """Even if it was made and only its answer was lost; it is made once."""
    HubRemote(REPO).create(private=False)
    before = len(hub.repos[REPO].commits)
    hub.faults = [Fault("POST", "/commit/", status=status, late=late)]
    send(store, HubRemote(REPO))
    assert HubRemote(REPO).names() == [NAME]
    assert len(hub.repos[REPO].commits) == before + 1


def test_a_refusal_is_not_tried_again(hub: Hub, store: Store) -> None:
    """No permission stays no permission."""
    HubRemote(REPO).create(private=False)
    hub.faults = [Fault("POST", "/commit/", status=403, times=99)]
    with pytest.raises(RemoteFailed, match="access was refused") as caught:
        send(store, HubRemote(REPO))
    assert "HF_TOKEN" in (caught.value.hint or "")
    assert len(hub.paths("POST", "/commit/")) == 1


def test_blobs_that_vanish_meanwhile_are_missed(hub: Hub, store: Store) -> None:
    """Nobody's pointer leads to blobs that another push removed."""
    send(store, HubRemote(REPO))
    remote = HubRemote(REPO)
    remote.create(private=False)
    publish(store, NEW)
    data = store.open(store.ref(NAME)).read_bytes()
    remote.sizes(ref.sha256 for ref in reach(data))
    kept = {
        path: content for path, content in (hub.repos[REPO].files("main") or {}).items() if content not in OLD
    }
    hub.repos[REPO].commit("main", kept)
    with pytest.raises(RemoteFailed, match="lost blobs"):
        push(store, remote, Publication("second", data), reach)
    assert HubRemote(REPO).names() == [NAME]


def test_a_gitignore_leaves_nothing_out(hub: Hub, store: Store, other: Store) -> None:
    """What a repository's rules ignore is part of the bundle all the same."""
    hub.seed(REPO, {".gitignore": b"blobs/\nbundles/\n"})
    send(store, HubRemote(REPO), contents=BIG)
    assert receive(other, HubRemote(REPO)).blobs == 4


def test_a_lost_connection_goes_on_where_it_broke(hub: Hub, store: Store, other: Store) -> None:
    """No byte travels twice, and nobody has to run anything again."""
    done = send(store, HubRemote(REPO), contents=BIG)
    hub.faults = [Fault("GET", "/cdn/", drop_after=70_000, times=6)]
    hub.sent = 0
    assert receive(other, HubRemote(REPO)).blobs == 4
    ranges = [headers.get("range") for _, path, headers in hub.requests if "/cdn/" in path]
    assert "bytes=70000-" in ranges
    assert hub.sent <= done.total + 300  # and the pointer
    assert verify(other, reach).problems == ()


def test_a_pull_that_gave_up_goes_on_later(hub: Hub, store: Store, other: Store) -> None:
    """After too many failures it says so; the next one asks for the rest alone."""
    send(store, HubRemote(REPO), contents=BIG)
    hub.faults = [
        Fault("GET", "/cdn/", drop_after=1000, times=3),
        Fault("GET", "/cdn/", status=503, times=99),
    ]
    with pytest.raises(RemoteFailed, match="503"):
        receive(other, HubRemote(REPO))
    hub.faults, hub.sent = [], 0
    receive(other, HubRemote(REPO))
    assert hub.sent <= sum(map(len, BIG)) - 1000 + 300


def test_an_error_ends_the_patience_of_others(
    hub: Hub, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One blob that can't be had for good ends a pull, whatever another one still waits for."""
    send(store, HubRemote(REPO), contents=BIG)
    monkeypatch.setattr(talking, "WAITS", (40.0,))
    refused, pending = (BlobRef.of(data) for data in BIG[:2])
    hub.faults = [
        Fault("GET", f"/cdn/.*{pending.sha256}", status=503, times=99),
        Fault("GET", f"/cdn/.*{refused.sha256}", status=403, delay=0.5),
    ]
    started = time.monotonic()
    with pytest.raises(RemoteFailed, match="access was refused"):
        fetch(other, HubRemote(REPO), [refused, pending])
    assert hub.paths("GET", f"/cdn/.*{pending.sha256}")
    assert time.monotonic() - started < 15  # the wait of the other one is 20 at least


def test_wrong_bytes_are_thrown_away(hub: Hub, store: Store, other: Store) -> None:
    """They become no blob and no start for the next try."""
    send(store, HubRemote(REPO), contents=BIG)
    hub.faults = [Fault("GET", "/cdn/", garble=True)]
    with pytest.raises(WrongBytes):
        receive(other, HubRemote(REPO))
    assert receive(other, HubRemote(REPO)).manifest == HubRemote(REPO).read(NAME)
    assert verify(other, reach).problems == ()


def test_a_server_that_says_nothing_is_given_up(
    hub: Hub, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent connection counts as a lost one."""
    send(store, HubRemote(REPO), contents=BIG)
    monkeypatch.setattr(talking, "TIMEOUT", 0.2)
    hub.faults = [Fault("GET", "/cdn/", delay=0.6)]
    assert receive(other, HubRemote(REPO)).blobs == 4


def test_a_server_without_ranges(hub: Hub, store: Store) -> None:
    """What comes from the begin although the end was asked for is skipped."""
    send(store, HubRemote(REPO), contents=BIG)
    ref = BlobRef.of(BIG[1])
    url = f"{hub.endpoint}/{REPO}/resolve/main/blobs/{ref.sha256}"
    assert b"".join(talking.streamed(url, 299_990)) == BIG[1][299_990:]
    hub.ranges = False
    assert b"".join(talking.streamed(url, 299_990)) == BIG[1][299_990:]


def test_the_token_stays_with_the_hub(hub: Hub, store: Store, other: Store) -> None:
    """The host that files are served from doesn't see it."""
    send(store, HubRemote(REPO), contents=BIG)
    receive(other, HubRemote(REPO))
    seen = {path.split("/")[1] == "cdn": headers.get("authorization") for _, path, headers in hub.requests}
    assert seen == {True: None, False: f"Bearer {hubserver.TOKEN}"}


def test_a_private_repository(hub: Hub, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made private, found with the token alone, and a public one is not taken for it."""
    HubRemote(REPO).create(private=True)
    assert hub.repos[REPO].private
    send(store, HubRemote(REPO))
    HubRemote(REPO).create(private=True)
    hub.seed("org/public", {})
    with pytest.raises(BadAddress, match="public repository"):
        HubRemote("org/public").create(private=True)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_HOME", "/nonexistent")
    with pytest.raises(UnknownBundle, match="no access") as caught:
        HubRemote(REPO).names()
    assert "hf auth login" in (caught.value.hint or "")


def test_what_is_not_there_is_said(hub: Hub, store: Store) -> None:
    """Repository, revision and blob."""
    send(store, HubRemote(REPO))
    with pytest.raises(UnknownBundle, match="no such repository"):
        HubRemote("org/nothing").names()
    with pytest.raises(UnknownBundle, match="no such branch"):
        HubRemote(REPO, "nothing").names()
    with pytest.raises(MissingBlob):
        list(HubRemote(REPO).get("0" * 64, 0))
    assert HubRemote(REPO).read("nothing") is None


def test_files_of_others_are_left_alone(hub: Hub, store: Store) -> None:
    """What isn't named like a bundle is none, and a blob of other content is none."""
    forged = {f"blobs/{'1' * 64}": b"x" * 500, "bundles/UPPER.json": b"", "bundles/notes.txt": b"hello"}
    hub.seed(REPO, forged)
    remote = HubRemote(REPO)
    assert remote.names() == []
    assert remote.sizes(["1" * 64]) == {}


def test_what_others_have_damaged_stops_no_push(hub: Hub, store: Store) -> None:
    """Pointers that lead nowhere are left out of the README, and their owners can push them anew."""
    hub.seed(REPO, {f"bundles/{name}": data for name, data in DAMAGED.items()})
    for name in (NAME, "torn"):
        send(store, HubRemote(REPO), name)
    assert HubRemote(REPO).names() == [NAME, "giant", "lost", "torn"]
    assert (hub.repos[REPO].files("main") or {})["README.md"].decode().split() == [NAME, "torn"]


def test_one_remote_reads_one_commit(hub: Hub, store: Store) -> None:
    """What is pushed meanwhile is not seen."""
    send(store, HubRemote(REPO))
    reader = HubRemote(REPO)
    before = reader.read(NAME)
    send(store, HubRemote(REPO), NAME, NEW)
    assert reader.read(NAME) == before != HubRemote(REPO).read(NAME)


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that can't be reached is named, after some tries."""
    monkeypatch.setattr(talking, "WAITS", (0.0,))
    remote = HubRemote(REPO, endpoint="http://127.0.0.1:9")
    with pytest.raises(RemoteFailed, match="can't be reached"):
        remote.names()


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that installs it is in the hint."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    talking.library.cache_clear()
    with pytest.raises(ToolMissing) as caught:
        HubRemote(REPO).names()
    assert (caught.value.hint, caught.value.exit_code) == ("pip install 'ltxbuild[hub]'", 3)
