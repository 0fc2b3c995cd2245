"""Why something would be built."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bundles import blobs_of, fake_bundle

from ltx_cache.key import Factor, Key
from ltx_cache.store import Store
from ltxbuild.plan.explain import Explanation, explain, nearest, rows, shortened
from ltxbuild.plan.planner import BuildPlan, plan_build
from ltxbuild.recipe import Recipe
from ltxbuild.synthetic.shipped import shipped_config

FILES = {"model": "a" * 64, "text_encoder/model.safetensors": "b" * 64}
VARIANT = {"height": 128, "width": 192, "frames": 17, "fps": 24}
BASE: dict[str, Any] = {
    "name": "why",
    "target": {"platform": "cpu", "isa": "avx2"},
    "pipeline": "distilled_one_stage",
    "variants": {"default": VARIANT},
}


def plan(store: Store, files: dict[str, str] | None = FILES, **changes: Any) -> BuildPlan:
    """A plan of the tiny model."""
    recipe = Recipe.model_validate({**BASE, **changes})
    return plan_build(recipe, shipped_config("ltx-2.3-tiny"), store, files)


def fill(store: Store, made: BuildPlan) -> None:
    """Let every key of a plan have a result."""
    any_bundle = fake_bundle(store)
    (program,), (weights,) = any_bundle.programs.values(), any_bundle.weights.values()
    for items, record in ((made.programs, program), (made.weights, weights)):
        for item in items.values():
            assert item.key is not None
            store.put_entry(item.key, msgspec.to_builtins(record), blobs_of(record))


def by_name(items: list[Explanation]) -> dict[str, Explanation]:
    return {f"{item.kind} {item.name.split('.')[0]}": item for item in items}


def test_an_empty_cache_has_nothing_to_compare_with(store: Store) -> None:
    """The first build of a program is a miss without neighbours."""
    for item in explain(plan(store), store):
        assert item.state == "miss"
        assert "no entry has this key" in item.reason
        assert (item.nearest, item.differences) == (None, ())


def test_what_is_built_hits(store: Store) -> None:
    """After a build everything hits and nothing differs."""
    fill(store, plan(store))
    found = explain(plan(store), store)
    assert len(found) > 10
    assert {(item.state, item.reason, item.differences) for item in found} == {("hit", "", ())}


def test_a_changed_size_is_the_only_difference(store: Store) -> None:
    """Another height names exactly the sizes that follow from it, with both values."""
    fill(store, plan(store))
    found = by_name(explain(plan(store, variants={"default": {**VARIANT, "height": 160}}), store))
    assert [item.name for item in found.values() if item.state == "miss"] == [
        found["program denoise"].name,
        found["program video_decoder"].name,
    ]
    assert found["program denoise"].differences == (("geometry.height", 4, 5),)


def test_another_checkpoint_is_named_by_its_file(store: Store) -> None:
    """Weights miss with the role of the file that changed, programs hit."""
    fill(store, plan(store))
    found = by_name(explain(plan(store, {**FILES, "model": "c" * 64}), store))
    assert found["weights transformer"].differences == (("files.model", "a" * 64, "c" * 64),)
    assert {item.state for item in found.values() if item.kind == "program"} == {"hit"}


def test_a_lost_blob_is_the_reason(store: Store) -> None:
    """A result whose blob is gone is a miss that says so."""
    made = plan(store)
    fill(store, made)
    for path in (store.root / "blobs").glob("*/*"):
        path.unlink()
    assert {item.reason for item in explain(plan(store), store)} == {
        "1 of 1 blobs are gone",
        "3 of 3 blobs are gone",
    }


def test_without_a_checkpoint_weights_have_no_key(store: Store) -> None:
    """Programs are explained all the same."""
    found = explain(plan(store, None), store)
    assert {item.state for item in found if item.kind == "weights"} == {"no checkpoint"}
    assert {item.state for item in found if item.kind == "program"} == {"miss"}


def test_against_a_bundle(store: Store) -> None:
    """Hits are compared too, and a program that the bundle lacks is said to be lacking."""
    made = plan(store)
    fill(store, made)
    denoise = next(name for name in made.programs if name.startswith("denoise"))
    bundle = fake_bundle(store, programs={denoise: made.programs[denoise].key})
    found = by_name(explain(plan(store), store, bundle))
    assert (found["program denoise"].state, found["program denoise"].reason) == ("hit", "the same key")
    assert "has no program vocoder" in found["program vocoder"].reason
    renamed = {denoise: Key("program", (Factor("program", "denoise"),))}
    other = explain(plan(store), store, fake_bundle(store, programs=renamed))
    assert by_name(other)["program denoise"].reason == "its factors are not in the cache"


def test_another_program_is_never_nearest() -> None:
    """A key of another program has few differences by chance and explains nothing."""
    key = Key("program", (Factor("program", "vocoder"), Factor("a", 1), Factor("b", 1)))
    far = Key("program", (Factor("program", "vocoder"), Factor("a", 2), Factor("b", 2)))
    other = Key("program", (Factor("program", "denoise"), Factor("a", 1), Factor("b", 1)))
    assert nearest(key, [other, key, far]) == far
    assert nearest(key, [other, key]) is None


def test_of_equally_near_keys_the_latest_is_shown(store: Store) -> None:
    """What changed since the last build is asked for, not since some build."""
    fill(store, plan(store, {**FILES, "model": "1" * 64}))
    for path in (store.root / "entries").glob("*/*.json"):
        os.utime(path, (1, 1))
    fill(store, plan(store, {**FILES, "model": "2" * 64}))
    found = by_name(explain(plan(store), store))
    assert found["weights transformer"].differences[0].old == "2" * 64


def test_rows_name_an_item_once() -> None:
    """Further differences of an item have no name in their row; a hit has one row."""
    key = Key("program", (Factor("program", "x"), Factor("a", 1)))
    item = Explanation("weights", "w", "miss", key.digest, "no entry has this key", "0" * 64)
    changes = tuple(explain_differences())
    assert [row[:3] for row in rows([replace(item, differences=changes)])] == [
        ("weights w", "miss", "a"),
        ("", "", "b.c"),
    ]
    assert list(rows([replace(item, state="hit", reason="")])) == [("weights w", "hit", "-", "", "")]


def explain_differences() -> list[Any]:
    from ltx_cache.key import differences

    return differences(
        Key("w", (Factor("a", 1), Factor("b", {"c": "x" * 99}))), Key("w", (Factor("b", {"c": None}),))
    )


@pytest.mark.parametrize("value", ["x" * 33, ["y" * 40], {"z": list(range(99))}])
def test_long_values_keep_both_ends(value: Any) -> None:
    """A cell is never wider than asked."""
    assert len(shortened(value)) <= 32
    assert "…" in shortened(value)


def test_the_command_prints_json_with_both_values(tmp_path: Path, store: Store) -> None:
    """Data goes to standard output; the title, the counts and the hint don't disturb it."""
    recipe = tmp_path / "recipe.yaml"
    text = {**BASE, "checkpoint": {"config": "ltx-2.3-tiny"}}
    recipe.write_text(json.dumps({**text, "variants": {"default": {**VARIANT, "height": 160}}}))
    fill(store, plan(store))
    command = [sys.executable, "-c", "from ltxbuild.cli.main import main; main()", "explain", str(recipe)]
    env = {**os.environ, "LTX_HOME": str(store.root)}
    done = subprocess.run(
        [*command, "--programs-only", "--json"], env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    programs = json.loads(done.stdout)["programs"]
    assert programs["denoise.3x5x6a18f24s8"]["differences"] == [
        {"factor": "geometry.height", "old": 4, "new": 5}
    ]
    done = subprocess.run([*command, "--programs-only"], env=env, capture_output=True, text=True, check=True)
    assert "geometry.height" in done.stdout
    assert "misses" in done.stderr
