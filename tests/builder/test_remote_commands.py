"""`ltxbuild push` and `pull`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundles import KEY, fake_bundle, publish
from commands import Command

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadName
from ltx_cache.store import Store
from ltx_run.bundle import blobs
from ltx_run.lookup import find


@pytest.fixture
def remote(store: Store, ltxbuild: Command, tmp_path: Path) -> str:
    """A remote with one bundle, pushed by the command."""
    publish(store, fake_bundle(store))
    url = f"file://{tmp_path}/remote"
    assert ltxbuild("push", "fake", url).code == 0
    return url


@pytest.fixture
def other(tmp_path: Path, remote: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Another machine's cache, in use from now on."""
    monkeypatch.setenv("LTX_HOME", str(tmp_path / "other"))
    return Store(tmp_path / "other")


def test_a_bundle_goes_from_one_cache_to_another(
    remote: str, other: Store, store: Store, ltxbuild: Command
) -> None:
    """The only bundle need not be named; every blob is there and verified."""
    done = ltxbuild("pull", "--allow-unsigned", remote, "--json")
    assert json.loads(done.out)["bundle"] == store.ref("fake").sha256
    opened = find("fake")
    assert len([opened.path(blob) for blob in blobs(opened.manifest)]) == 5
    assert ltxbuild("verify").code == 0
    assert json.loads(ltxbuild("pull", "--allow-unsigned", remote, "--json").out)["blobs"] == 0


def test_a_second_variant_sends_its_program_only(remote: str, store: Store, ltxbuild: Command) -> None:
    """Weights and tokenizer are there already."""
    publish(store, fake_bundle(store, "wide", code=b"wide executable"))
    sent = json.loads(ltxbuild("push", "wide", remote, "--json").out)
    assert sent["bytes"] == len(b"wide executable") + store.ref("wide").size


def test_names_on_both_sides(
    remote: str, other: Store, store: Store, ltxbuild: Command, tmp_path: Path
) -> None:
    """A bundle may have another name there and another one here; of several, one must be named."""
    ltxbuild("pull", "--allow-unsigned", remote, "--as", "mine")
    assert ltxbuild("push", "mine", f"{remote}#next").code == 0
    done = ltxbuild("pull", "--allow-unsigned", remote)
    assert done.code == 2
    assert f"'{remote}#fake' or '{remote}#next'" in done.err
    assert ltxbuild("pull", "--allow-unsigned", f"{remote}#next").code == 0
    assert [ref.name for ref in other.refs()] == ["mine", "next"]


def test_factors_go_along(remote: str, tmp_path: Path) -> None:
    """The key of each program is a blob named by its digest, so that misses can be explained there."""
    found = (tmp_path / "remote" / "blobs" / KEY.digest).read_bytes()
    assert BlobRef.of(found).sha256 == KEY.digest
    assert json.loads(found)["factors"]["program"] == "vocoder"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pull", "file:///nowhere/at/all"), "has no bundles"),
        (("pull", "file:///nowhere/at/all#x"), "it has: none"),
        (("pull", "file://host/share"), "is no address"),
        (("pull", "/mnt/bundles"), "is no address"),
        (("pull", "http://host/x"), "is no address"),
        (("push", "nothing", "file:///nowhere"), "has no ref"),
        (("pull", "file:///nowhere#.."), "not a valid bundle name"),
    ],
)
def test_wrong_addresses(arguments: tuple[str, ...], message: str, ltxbuild: Command) -> None:
    """One message, exit code 2, no traceback."""
    done = ltxbuild(*arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_an_at_in_a_folder_is_no_name(store: Store, ltxbuild: Command, tmp_path: Path) -> None:
    """Only what follows the last slash can be a name; `%40` is an `@` of the folder."""
    publish(store, fake_bundle(store))
    assert ltxbuild("push", "fake", f"file://{tmp_path}/a@b/c").code == 0
    assert ltxbuild("push", "fake", f"file://{tmp_path}/d%40e").code == 0
    assert (tmp_path / "a@b" / "c" / "bundles" / "fake.json").is_file()
    assert (tmp_path / "d@e" / "bundles" / "fake.json").is_file()


def test_a_hostile_remote_names_nothing_outside(
    remote: str, other: Store, ltxbuild: Command, tmp_path: Path
) -> None:
    """Names come from the address, not from the manifest; a name that leads elsewhere is refused."""
    assert ltxbuild("pull", "--allow-unsigned", f"{remote}#fake", "--as", "../evil").code == BadName.exit_code
    assert other.refs() == []
