"""`ltxbuild list` and `show`: bundles of other versions, and names that look like markup."""

from __future__ import annotations

import json

import msgspec
import pytest
from bundles import fake_bundle, publish
from commands import Command
from msgspec import structs

from ltx_cache.store import Store
from ltx_run.bundle import encode

MARKUP = "[red]x[/] [/y] :smile:"


@pytest.fixture
def newer(store: Store) -> Store:
    """A store with a bundle of this version and one of another."""
    publish(store, fake_bundle(store, "mine"))
    fields = msgspec.json.decode(encode(fake_bundle(store, "newer")))
    store.set_ref("newer", store.put_bytes(msgspec.json.encode({**fields, "schema": 2})))
    return store


def test_a_bundle_of_another_version_hides_no_others(newer: Store, ltxbuild: Command) -> None:
    """It is listed as what it is, with what to do about it."""
    done = ltxbuild("list")
    assert done.code == 0, done.err
    lines = {line.split()[1]: line for line in done.out.splitlines() if "\u2502" in line}
    assert "default" in lines["mine"]
    assert "made by another version" in lines["newer"]
    assert "upgrade" in done.err
    listed = json.loads(ltxbuild("list", "--json").out)
    assert listed["mine"].keys() == {"digest", "bytes"}
    assert (listed["newer"]["digest"], listed["newer"]["bytes"]) == (newer.ref("newer").sha256, None)
    assert "can't be read" in listed["newer"]["problem"]


@pytest.mark.parametrize("command", [("show", "newer"), ("export", "newer", "--neuron", "graphs")])
def test_a_bundle_of_another_version_is_said_to_be_one(
    command: tuple[str, ...], newer: Store, ltxbuild: Command
) -> None:
    """Where it is all that was asked for, that is an error."""
    done = ltxbuild(*command)
    assert (done.code, done.out) == (1, "")
    assert "can't be read" in done.err
    assert "another version of this tool" in done.err
    assert "internal error" not in done.err


def test_names_are_no_markup(store: Store, ltxbuild: Command) -> None:
    """Whatever a manifest from elsewhere holds is shown as it is."""
    made = fake_bundle(store)
    (program,), (weights,) = made.programs.values(), made.weights.values()
    strange = structs.replace(
        made,
        variants={MARKUP: made.variants["default"]},
        programs={MARKUP: structs.replace(program, weights=MARKUP, mesh=((MARKUP, 1),))},
        weights={MARKUP: weights},
        provenance={MARKUP: MARKUP},
    )
    publish(store, strange)
    for command, times in ((("list",), 1), (("show", "fake"), 6), (("inspect", "fake", MARKUP), 2)):
        done = ltxbuild(*command)
        assert done.code == 0, done.err
        assert done.out.count(MARKUP) == times
