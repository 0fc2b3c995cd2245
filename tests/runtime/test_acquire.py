"""Bundles from a remote into the cache: which one, how much of it, and whose."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import msgspec
import pytest
from sharing import KEY, STRANGER, digest, share, two_variants

from ltx_cache.address import Address, address
from ltx_cache.errors import BadName, LtxError, NotTrusted, RemoteFailed, UnknownBundle
from ltx_cache.folder_remote import FolderRemote
from ltx_cache.remote import Publication
from ltx_cache.store import Store
from ltx_cache.transfer import push
from ltx_cache.trust import Trust
from ltx_run.acquire import Acquired, Order, acquire, local_name, origin
from ltx_run.bundle import Bundle, encode
from ltx_run.contents import contents, platforms
from ltx_run.errors import BundleInvalid, ProgramMismatch
from ltx_run.lookup import find

TRUST = Trust((KEY.public,))


@pytest.fixture
def remote(tmp_path: Path) -> FolderRemote:
    """An empty remote."""
    return FolderRemote(tmp_path / "remote")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


@pytest.fixture
def bundle(remote: FolderRemote, tmp_path: Path) -> Bundle:
    """A signed bundle at the remote."""
    maker = Store(tmp_path / "maker")
    bundle = two_variants(maker)
    share(maker, remote, bundle)
    return bundle


def small(bundle: Bundle) -> Collection[str]:
    return ("small",)


def everything(bundle: Bundle) -> None:
    return None


def for_cpu(bundle: Bundle) -> None:
    if platforms(bundle) != ("cpu",):
        raise ProgramMismatch(f"for {platforms(bundle)[0]}")


def get(
    store: Store,
    remote: FolderRemote,
    which: str | None = None,
    select: object = everything,
    **options: object,
) -> Acquired:
    """Acquire with some options."""
    order = Order(**{"source": Address(remote, which), "trust": TRUST, "select": select, **options})
    return acquire(store, order)


def test_one_variant_comes_alone(remote: FolderRemote, store: Store, bundle: Bundle) -> None:
    """The other one follows when it is asked for, with its program only; the cache knows what it has."""
    got = get(store, remote, select=small)
    assert got.transfer is not None
    whole = sum(ref.size for ref in contents(store.open(store.ref("two")).read_bytes()))
    missing = bundle.programs["large"].executable
    assert got.transfer.total == whole - missing.size + store.ref("two").size
    assert got.origin.variants == ("small",)
    more = get(store, remote, select=lambda bundle: ("large",))
    assert more.transfer is not None
    assert (more.transfer.blobs, more.transfer.size) == (1, missing.size)
    assert more.origin.variants == ("large", "small")
    assert get(store, remote).origin.variants is None
    assert get(store, remote, select=small).origin.variants is None


def test_the_only_bundle_of_use_is_taken(
    remote: FolderRemote, store: Store, bundle: Bundle, tmp_path: Path
) -> None:
    """Of bundles for several platforms, the one for this; of several for this, one must be named."""
    maker = Store(tmp_path / "maker")
    share(maker, remote, two_variants(maker, "chip", "tpu"))
    with pytest.raises(UnknownBundle, match="2 bundles of use") as caught:
        get(store, remote)
    assert caught.value.hint == f"name one: '{remote.url}#chip' or '{remote.url}#two'"
    assert get(store, remote, select=for_cpu).name == "two"
    assert get(store, remote, "chip").name == "chip"
    with pytest.raises(ProgramMismatch):
        get(store, remote, "chip", for_cpu)
    share(maker, remote, two_variants(maker, "two", "cuda"))
    with pytest.raises(UnknownBundle, match=r"none of the 2 bundles(.|\n)*chip: for tpu\n  two: for cuda"):
        get(store, remote, select=for_cpu)


def test_a_digest_pins(remote: FolderRemote, store: Store, bundle: Bundle, tmp_path: Path) -> None:
    """Whatever its name points to now; and once it is here, the remote isn't looked at."""
    maker = Store(tmp_path / "maker")
    share(maker, remote, two_variants(maker, "two", "tpu"))
    source = Address(remote, digest=digest(bundle))
    assert source.pinned
    assert get(store, remote, source=source).name == "two"
    assert store.ref("two").sha256 == digest(bundle)
    nowhere = Address(FolderRemote(tmp_path / "gone"), digest=digest(bundle))
    with pytest.raises(UnknownBundle, match="has no blob"):
        get(store, remote, source=nowhere)
    (tmp_path / "remote").rename(tmp_path / "gone")
    again = get(store, remote, source=source, name="mine")
    assert (again.transfer, again.name) == (None, "mine")
    assert store.ref("mine").sha256 == digest(bundle)


def test_who_signed_is_checked(remote: FolderRemote, store: Store, bundle: Bundle, tmp_path: Path) -> None:
    """No signature, one of a stranger, a wrong one: refused unless accepted, and nothing is named."""
    maker = Store(tmp_path / "maker")
    share(maker, remote, two_variants(maker, "unsigned"), None)
    share(maker, remote, two_variants(maker, "strange"), STRANGER)
    forged = two_variants(maker, "forged")
    share(maker, remote, forged)
    path = tmp_path / "remote" / "signatures" / digest(forged) / KEY.public.id
    path.write_bytes(bytes(64))
    for name, message in (
        ("unsigned", "is not signed"),
        ("strange", f"by no key that you trust: {STRANGER.public.fingerprint}"),
        ("forged", "has a wrong signature"),
    ):
        with pytest.raises(NotTrusted, match=re.escape(message)):
            get(store, remote, name)
        assert store.refs() == []
        accepted = get(Store(tmp_path / name), remote, name, trust=Trust((), allow_unsigned=True))
        assert accepted.origin.signatures == {}
    assert get(store, remote).origin.signatures.keys() == {KEY.public.id}


def test_an_untrusted_manifest_is_not_parsed(
    remote: FolderRemote, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parser never sees bytes that nobody answers for."""
    maker = Store(tmp_path / "maker")
    share(maker, remote, two_variants(maker), None)
    parsed: list[bytes] = []
    for module in ("acquire", "offers", "contents"):
        monkeypatch.setattr(f"ltx_run.{module}.parsed", parsed.append)
    with pytest.raises(NotTrusted):
        get(store, remote)
    assert parsed == []


def test_the_signature_is_checked_again_in_the_cache(
    remote: FolderRemote, store: Store, bundle: Bundle, tmp_path: Path
) -> None:
    """What was accepted unsigned once is not trusted ever after; what was signed stays signed."""
    source = Address(remote, digest=digest(bundle))
    get(store, remote, source=source, trust=Trust((), allow_unsigned=True))
    (tmp_path / "remote").rename(tmp_path / "gone")
    with pytest.raises(NotTrusted):
        get(store, remote, source=source)
    (tmp_path / "gone").rename(tmp_path / "remote")
    get(store, remote, source=source, trust=Trust((), allow_unsigned=True))
    signed = Store(tmp_path / "signed")
    get(signed, remote, source=source)
    (tmp_path / "remote").rename(tmp_path / "gone")
    assert get(signed, remote, source=source).transfer is None
    with pytest.raises(NotTrusted):
        get(signed, remote, source=source, trust=Trust((STRANGER.public,)))


def test_trust_that_came_later_is_asked_about(
    remote: FolderRemote, store: Store, bundle: Bundle, tmp_path: Path
) -> None:
    """A pinned bundle that was accepted unsigned, or by another key, is trusted once its signature is got."""
    source = Address(remote, digest=digest(bundle))
    get(store, remote, source=source, trust=Trust((), allow_unsigned=True))
    got = get(store, remote, source=source)
    assert got.origin.signatures.keys() == {KEY.public.id}
    assert got.transfer is not None
    assert got.transfer.blobs == 0
    other = Trust((STRANGER.public,))
    with pytest.raises(NotTrusted, match="by no key that you trust"):
        get(store, remote, source=source, trust=other)
    share(Store(tmp_path / "maker"), remote, bundle, STRANGER)
    assert get(store, remote, source=source, trust=other).origin.signatures.keys() == {
        KEY.public.id,
        STRANGER.public.id,
    }
    (tmp_path / "remote").rename(tmp_path / "gone")
    for trust in (TRUST, other):
        assert get(store, remote, source=source, trust=trust).transfer is None


def test_who_cannot_be_asked_for_a_signature_changes_nothing(
    remote: FolderRemote, store: Store, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong is that the bundle here isn't signed, not that the network is down."""

    def down(*_: object) -> list[str]:
        raise RemoteFailed("no answer")

    source = Address(remote, digest=digest(bundle))
    get(store, remote, source=source, trust=Trust((), allow_unsigned=True))
    monkeypatch.setattr(FolderRemote, "signers", down)
    with pytest.raises(NotTrusted, match="is not signed"):
        get(store, remote, source=source)
    with pytest.raises(RemoteFailed):
        get(store, remote, "two")


def test_what_is_remembered_is_trusted_under_any_name(
    remote: FolderRemote, store: Store, bundle: Bundle, tmp_path: Path
) -> None:
    """One name that was accepted unsigned doesn't stand in the way of another with the signature."""
    source = Address(remote, digest=digest(bundle))
    get(store, remote, source=source, trust=Trust((), allow_unsigned=True), name="a")
    get(store, remote, "two", name="b")
    store.set_ref("b", store.ref("b"), {**store.ref_with_summary("b").summary, "source": str(source)})
    (tmp_path / "remote").rename(tmp_path / "gone")
    assert get(store, remote, source=source).name == "b"


def test_without_its_folder_a_bundle_is_remembered_offline(
    remote: FolderRemote, store: Store, bundle: Bundle, tmp_path: Path
) -> None:
    """A folder that is there is read; once it is unplugged, what came from it is taken, by whom it may be."""
    maker, folder = Store(tmp_path / "maker"), tmp_path / "remote"
    get(store, remote, "two", offline=True)
    newer = msgspec.structs.replace(bundle, variants={"small": bundle.variants["small"]})
    share(maker, remote, newer)
    get(store, remote, "two", offline=True)
    assert store.ref("two").sha256 == digest(newer)
    with pytest.raises(UnknownBundle, match="has no bundle tow"):
        get(store, remote, "tow", offline=True)
    share(maker, remote, two_variants(maker, "two", "tpu"), None)
    with pytest.raises(NotTrusted):
        get(store, remote, "two", offline=True)
    older = folder.rename(tmp_path / "gone")
    with pytest.raises(UnknownBundle, match="has no bundle two"):
        get(store, remote, "two")
    for unplugged in (False, True):
        if unplugged:
            folder.mkdir()  # where it was mounted
        assert get(store, remote, "two", offline=True).transfer is None
        with pytest.raises(NotTrusted):
            get(store, remote, "two", offline=True, trust=Trust((STRANGER.public,)))
        with pytest.raises(UnknownBundle, match="has no bundles"):
            get(store, remote, offline=True)
    folder.rmdir()
    older.rename(folder)
    for more in (newer, two_variants(maker, "three")):
        share(maker, remote, more)
    with pytest.raises(UnknownBundle, match="2 bundles of use"):
        get(store, remote, offline=True)


def test_what_came_under_the_wanted_name_is_remembered_first(
    remote: FolderRemote, store: Store, bundle: Bundle, tmp_path: Path
) -> None:
    """An older bundle of the same address, kept under another name, doesn't take its place."""
    get(store, remote, "two", name="kept")
    newer = msgspec.structs.replace(bundle, variants={"small": bundle.variants["small"]})
    share(Store(tmp_path / "maker"), remote, newer)
    get(store, remote, "two", name="latest")
    (tmp_path / "remote").rename(tmp_path / "gone")
    get(store, remote, "two", name="latest", offline=True)
    assert store.ref("latest").sha256 == digest(newer)
    assert store.ref("kept").sha256 == digest(bundle)


def test_a_name_of_the_manifest_can_be_none_in_the_cache(
    remote: FolderRemote, store: Store, tmp_path: Path
) -> None:
    """A bundle that is pinned has the name that it says, if that is one."""
    maker = Store(tmp_path / "maker")
    named = two_variants(maker)
    share(maker, remote, named)
    evil = msgspec.structs.replace(named, name="../evil")
    with pytest.raises(BadName):
        share(maker, remote, evil)
    data = encode(evil)
    push(maker, remote, Publication("good", data, {KEY.public.id: KEY.sign(data)}), contents)
    with pytest.raises(BadName):
        get(store, remote, source=Address(remote, digest=digest(evil)))
    assert get(store, remote, "good").name == "good"


def test_unknown_names_are_told_with_those_there_are(
    remote: FolderRemote, store: Store, bundle: Bundle, tmp_path: Path
) -> None:
    """The names are in the hint; an empty remote says so."""
    with pytest.raises(UnknownBundle) as caught:
        get(store, remote, "tow")
    assert caught.value.hint == "it has: two"
    with pytest.raises(UnknownBundle, match="has no bundles"):
        get(store, FolderRemote(tmp_path / "nowhere"))


def test_origins(remote: FolderRemote, store: Store, bundle: Bundle) -> None:
    """A bundle knows where it came from; one that was made here came from nowhere."""
    get(store, remote)
    store.set_ref("own", store.ref("two"), {"programs": 3})
    known = {ref.name: origin(ref) for ref in store.refs()}
    assert known["own"] is None
    assert known["two"] is not None
    assert known["two"].source == remote.url


@pytest.mark.parametrize(
    "text",
    [
        "hf://Org/Repo",
        "file:///",
        "hf://org/repo@refs/pr/1",
        "hf://org/repo@v2#wide",
        "file:///mnt/a%40b%23c#tiny",
        f"file:///x#sha256:{'0' * 64}",
        "file:///" + "long/" * 60,
    ],
)
def test_addresses_have_names_of_their_own(text: str, store: Store) -> None:
    """Each is one of the cache, and another for each address."""
    source = address(text)
    assert str(address(str(source))) == str(source)
    store.set_ref(local_name(source), store.put_bytes(b""))
    other = address(text.replace("hf://Org", "hf://org").replace("#", "x#"))
    assert (local_name(other) == local_name(source)) == (str(other) == str(source))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/mnt",
        "file://host/x",
        "file:///x#../y",
        "hf://org",
        "hf:///repo",
        "hf://org/repo/more",
        "hf://org/repo@",
        "hf://org/repo@a b",
        "hf://org/repo#UPPER",
        "hf://org/repo#sha256:12",
    ],
)
def test_addresses_of_other_forms(text: str) -> None:
    """One error, nothing guessed."""
    with pytest.raises(LtxError) as caught:
        address(text)
    assert caught.value.exit_code == 2


def test_a_variant_that_was_not_received_is_said(
    remote: FolderRemote, store: Store, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that receives it."""
    get(store, remote, select=small)
    monkeypatch.setenv("LTX_HOME", str(store.root))
    opened = find("two")
    opened.require([("program small", bundle.programs["small"].executable)])
    with pytest.raises(BundleInvalid, match="lacks program large") as caught:
        opened.require([("program large", bundle.programs["large"].executable)])
    command = f"ltxbuild pull '{remote.url}' --as two --variant NAME"
    assert caught.value.hint == f"of it the cache has small: {command}"
