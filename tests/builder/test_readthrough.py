"""`ltxbuild compile --from`: results of others instead of own builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bundles import fake_bundle
from commands import Command
from test_explain import BASE, FILES, VARIANT, plan

from ltx_cache.address import Address
from ltx_cache.errors import UnknownBundle, WrongBytes
from ltx_cache.folder_remote import FolderRemote
from ltx_cache.remote import Publication
from ltx_cache.store import Hit, Store
from ltx_cache.transfer import push
from ltx_cache.trust import Trust
from ltx_run.bundle import Blob, Bundle, Portable, encode
from ltx_run.contents import contents
from ltxbuild.bundles.keys import keys
from ltxbuild.bundles.readthrough import read_through
from ltxbuild.plan.planner import BuildPlan

ANYONE = Trust((), allow_unsigned=True)


def built(store: Store, made: BuildPlan) -> Bundle:
    """A bundle of made-up results for all that a plan needs, entered in the store."""
    bundle = fake_bundle(store, "built")
    program, weights = next(iter(bundle.programs.values())), bundle.weights["vocoder"]
    module = store.put_bytes(b"module")
    portable = Portable(module=Blob(sha256=module.sha256, size=module.size), flags={})
    program = msgspec.structs.replace(program, portable=portable)
    programs = {
        name: msgspec.structs.replace(program, key=item.key.digest, weights=item.spec.weights)
        for name, item in made.programs.items()
    }
    sets = {
        name: msgspec.structs.replace(weights, key=item.key.digest)
        for name, item in made.weights.items()
        if item.key
    }
    for item in (*made.programs.values(), *made.weights.values()):
        assert item.key is not None
        store.put_entry(item.key, {}, [])
    return msgspec.structs.replace(bundle, programs=programs, weights=sets)


@pytest.fixture
def remote(tmp_path: Path) -> FolderRemote:
    """A remote with all that the tiny model's recipe needs."""
    store, remote = Store(tmp_path / "builder"), FolderRemote(tmp_path / "remote")
    data = encode(built(store, plan(store)))
    push(store, remote, Publication("built", data), contents, keys(store, data))
    return remote


def test_what_matches_is_taken_and_hits(remote: FolderRemote, store: Store) -> None:
    """After that nothing is left to build, and the results carry this plan's weight sets."""
    taken = read_through(plan(store), store, Address(remote), ANYONE)
    again = plan(store)
    assert again.complete
    assert len(taken.hits) == len(again.programs) + len(again.weights)
    assert (taken.misses, taken.notes) == ((), ())
    for item in again.programs.values():
        assert item.record is not None
        assert item.record.weights == item.spec.weights
        assert isinstance(item.found, Hit)
        read = [store.open(blob, paranoid=True).read_bytes() for blob in item.found.blobs]
        assert read == [b"executable", b"module"]
    assert read_through(again, store, Address(remote, "built"), ANYONE).hits == ()


def test_a_miss_names_the_factor_that_differs_there(remote: FolderRemote, store: Store) -> None:
    """Another height takes all but what depends on it."""
    other = plan(store, variants={"default": {**VARIANT, "height": 160}})
    taken = read_through(other, store, Address(remote), ANYONE)
    assert [item.name.split(".")[0] for item in taken.misses] == ["denoise", "video_decoder"]
    assert taken.misses[0].differences == (("geometry.height", 4, 5),)
    assert len(taken.hits) == len(other.programs) + len(other.weights) - 2


def test_other_weights_are_not_taken(remote: FolderRemote, store: Store) -> None:
    """A weight set of another checkpoint has another key."""
    other = plan(store, {**FILES, "model": "c" * 64})
    taken = read_through(other, store, Address(remote), ANYONE)
    assert not any(name.startswith("weights") for name in taken.hits)
    assert taken.misses[0].differences[0].old == "a" * 64


def test_wrong_bytes_enter_nothing(remote: FolderRemote, store: Store, tmp_path: Path) -> None:
    """A result whose blob is damaged there stays a miss."""
    for path in (tmp_path / "remote" / "blobs").iterdir():
        if path.read_bytes() == b"executable":
            path.write_bytes(b"EXECUTABLE")
    with pytest.raises(WrongBytes):
        read_through(plan(store), store, Address(remote), ANYONE)
    assert not any(isinstance(item.found, Hit) for item in plan(store).programs.values())


def test_a_bundle_of_another_version_is_left_out(remote: FolderRemote, store: Store) -> None:
    """It is noted, and the others are used."""
    push(store, remote, Publication("future", b'{"schema":99}'), lambda manifest: ())
    taken = read_through(plan(store), store, Address(remote), ANYONE)
    assert "bundle future was left out" in taken.notes[0]
    assert taken.hits


def test_a_remote_without_the_bundle_is_an_error(remote: FolderRemote, store: Store, tmp_path: Path) -> None:
    """A mistyped address doesn't lead to hours of building."""
    with pytest.raises(UnknownBundle, match="no bundle nothing"):
        read_through(plan(store), store, Address(remote, "nothing"), ANYONE)
    with pytest.raises(UnknownBundle, match="no bundles"):
        read_through(plan(store), store, Address(FolderRemote(tmp_path / "nowhere"), None), ANYONE)


def test_without_factors_a_miss_is_still_told(remote: FolderRemote, store: Store, tmp_path: Path) -> None:
    """A remote that keeps no factors, or forged ones, explains nothing."""
    for path in (tmp_path / "remote" / "blobs").iterdir():
        if b'"factors"' in path.read_bytes():
            path.write_bytes(path.read_bytes().replace(b'"jax"', b'"max"'))
    other = plan(store, variants={"default": {**VARIANT, "height": 160}})
    taken = read_through(other, store, Address(remote), ANYONE)
    assert {item.reason for item in taken.misses} == {"it has no other of it"}


def test_the_command_takes_and_tells(
    remote: FolderRemote, store: Store, ltxbuild: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken is not built; what was not is named with the differing factor."""
    from ltxbuild.cli import compile as compiling

    missing: list[str] = []

    def build(found: Any, *_: Any) -> None:
        missing.extend(name for name, item in found.plan.programs.items() if item.record is None)

    monkeypatch.setattr(compiling, "_build", build)
    recipe = tmp_path / "recipe.yaml"
    higher = {"default": {**VARIANT, "height": 160}}
    recipe.write_text(json.dumps({**BASE, "checkpoint": {"config": "ltx-2.3-tiny"}, "variants": higher}))
    done = ltxbuild("compile", str(recipe), "--programs-only", "--from", remote.url, "--allow-unsigned")
    assert done.code == 0, done.err
    assert [name.split(".")[0] for name in missing] == ["denoise", "video_decoder"]
    assert "geometry.height 4 -> 5" in done.err
    assert "4 results taken from" in done.err
    assert ltxbuild("compile", str(recipe), "--from", remote.url, "--dry-run").code == 2
    assert ltxbuild("compile", str(recipe), "--programs-only", "--from", "nowhere").code == 2
