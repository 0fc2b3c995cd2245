"""`ltxbuild inspect`: exchanges and memory of one program of a bundle."""

from __future__ import annotations

import json

import pytest
from bundles import fake_bundle, publish
from commands import Command
from msgspec import structs

from ltx_cache.store import Store
from ltx_run.bundle import Census, Collective, Temporary, WeightInput
from ltxbuild.cli.inspect import sent

SUMS = Collective(kind="all-reduce", group=4, loops=(3, 48), count=7, bytes=4000)
ONCE = Collective(kind="all-gather", group=8, loops=(), count=1, bytes=800)
CENSUS = Census(
    collectives=(SUMS, ONCE),
    temporaries=(Temporary(bytes=64, shape="f32[16]", opcode="fusion", origin="body/mul"),),
)
STACK = WeightInput(name="blocks.to_q.weight", shape=(48, 8, 8), dtype="bfloat16", spec=(None, "tp", None))


@pytest.fixture
def bundle(store: Store) -> None:
    """A bundle of which one program has a census."""
    made = fake_bundle(store)
    (program,) = made.programs.values()
    told = structs.replace(program, census=CENSUS, inputs=(STACK,), mesh=(("tp", 4),))
    publish(store, structs.replace(made, programs={"denoise.1": told, "denoise.2": program}))


@pytest.mark.parametrize(
    ("kind", "group", "expected"),
    [("all-reduce", 4, 6000), ("all-gather", 4, 3000), ("collective-permute", 8, 4000), ("all-reduce", 1, 0)],
)
def test_what_a_device_of_a_ring_sends(kind: str, group: int, expected: int) -> None:
    """Each of n parts passes n - 1 devices, twice for a sum; a permute is one message."""
    assert sent(Collective(kind=kind, group=group, loops=(3,), count=1, bytes=4000)) == expected


@pytest.mark.usefixtures("bundle")
def test_exchanges_are_shown_per_block_and_in_all(ltxbuild: Command) -> None:
    """The table names the loop over 48 blocks; the totals count every iteration."""
    shown = ltxbuild("inspect", "fake", "denoise.1").out
    assert "block, 3 x 48 times" in shown
    found = json.loads(ltxbuild("inspect", "fake", "denoise.1", "--json").out)
    assert [row["in_block"] for row in found["collectives"]] == [True, False]
    assert found["sent"] == 6000 * 3 * 48 + 700
    assert (found["layers"], found["temporaries"][0]["shape"]) == (48, "f32[16]")


@pytest.mark.usefixtures("bundle")
def test_a_program_without_a_census_says_so(ltxbuild: Command) -> None:
    """Memory is shown all the same."""
    done = ltxbuild("inspect", "fake", "denoise.2")
    assert "arguments" in done.out
    assert "the compiler doesn't tell" in done.err
    assert json.loads(ltxbuild("inspect", "fake", "denoise.2", "--json").out)["collectives"] is None


def test_what_a_compiler_calls_things_is_no_markup(store: Store, ltxbuild: Command) -> None:
    """Kinds, shapes, operations and origins are shown as they are."""
    odd = "[/b][red]"
    census = Census(
        collectives=(structs.replace(SUMS, kind=odd),),
        temporaries=(Temporary(bytes=64, shape=odd, opcode=odd, origin=odd),),
    )
    made = fake_bundle(store)
    (program,) = made.programs.values()
    publish(store, structs.replace(made, programs={"denoise": structs.replace(program, census=census)}))
    assert ltxbuild("inspect", "fake", "denoise").out.count(odd) == 4


@pytest.mark.usefixtures("bundle")
@pytest.mark.parametrize(
    ("name", "message"),
    [("denoise", "has 2 programs denoise (there are: denoise.1, denoise.2)"), ("vocoder", "has no program")],
)
def test_a_name_must_mean_one_program(ltxbuild: Command, name: str, message: str) -> None:
    """Others are an error that lists what there is."""
    done = ltxbuild("inspect", "fake", name)
    assert done.code == 2
    assert message in done.err
