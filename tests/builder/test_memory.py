"""Memory before anything is compiled, and whether programs fit their devices."""

from __future__ import annotations

import json
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import pytest
from commands import Command

from ltx_cache.store import Hit, Store
from ltx_run.bundle import Blob, Fingerprint, Memory, Program
from ltxbuild.plan.activations import temporary
from ltxbuild.plan.arguments import tensor_bytes
from ltxbuild.plan.chips import DEVICE_MEMORY, device_memory
from ltxbuild.plan.memory import Fit, Footprint, fits, footprint, successors
from ltxbuild.plan.planner import BuildPlan, plan_build
from ltxbuild.precision import ITEMSIZE
from ltxbuild.programs import MODULES, traceable
from ltxbuild.recipe import Recipe, load
from ltxbuild.synthetic.shipped import shipped_config

ROOT = Path(__file__).parents[2]
BYTES = {**ITEMSIZE, "int32": 4, "bool": 1}
TINY: dict[str, Any] = {
    "name": "law",
    "target": {"platform": "cpu"},
    "pipeline": "guided_two_stage",
    "steps": 4,
    "guidance": {"stg_blocks": [1]},
    "variants": {
        "default": {"height": 128, "width": 192, "frames": 17},
        "images": {"height": 128, "width": 192, "frames": 17, "keyframes": 2},
    },
}


def planned(store: Store, recipe: Recipe, config: str = "ltx-2.3-22b") -> BuildPlan:
    """The plan of a recipe, of which nothing is built."""
    return plan_build(recipe, shipped_config(config), store, None)  # type: ignore[arg-type]


@pytest.fixture
def v6e(store: Store) -> BuildPlan:
    """Two stages of the full model on eight v6e chips."""
    return planned(store, load(ROOT / "recipes/v6e8_two_stage.yaml"))


@pytest.mark.parametrize("loop", ["fused", "stepwise"])
def test_tensor_bytes_are_those_of_the_programs(store: Store, loop: str) -> None:
    """The sizes worked out without jax are those of the programs' own inputs, for every kind."""
    made = planned(store, Recipe.model_validate({**TINY, "loop": loop}), "ltx-2.3-tiny")
    for item in made.programs.values():
        traced = traceable(item.spec, made.config, "bfloat16", item.forms)
        exact = sum(prod(tensor.shape) * BYTES[tensor.dtype] for tensor in traced.tensors)
        assert tensor_bytes(item.spec, made.config, 2, 1) == exact, item.spec.id


def test_every_kind_of_program_has_an_estimate() -> None:
    """A new kind without one is found here."""
    from ltxbuild.plan.activations import _FORMULAS

    assert _FORMULAS.keys() == MODULES.keys()


def test_what_a_compiler_does_not_tell_stays_an_estimate(store: Store, v6e: BuildPlan) -> None:
    """Trainium's compiler gives code and tensors, so scratch memory is estimated before and after."""
    trn2 = planned(store, load(ROOT / "recipes/trn2_halfres.yaml"))
    for made, told in ((trn2, False), (v6e, True)):
        item = next(item for item in made.programs.values() if item.spec.weights == "transformer")
        memory = Memory(arguments=1, outputs=2, temp=0, code=3)
        built = replace(item, found=Hit(msgspec.to_builtins(program(memory)), ()))
        before, after = footprint(item, made), footprint(built, made)
        assert (after.code, after.estimated) == (3, not told)
        assert after.temp == (2 if told else before.temp)


def program(memory: Memory) -> Program:
    """The record of a program that takes so much."""
    blob = Blob(sha256="0" * 64, size=1)
    fingerprint = Fingerprint(platform="cpu", runtime="", features=(), devices=1)
    return Program(
        executable=blob,
        fingerprint=fingerprint,
        mesh=(),
        weights=None,
        inputs=(),
        outputs=(),
        memory=memory,
        flops=0.0,
        key="0" * 64,
    )


def test_what_splitting_and_forms_save(v6e: BuildPlan) -> None:
    """Four devices along tokens hold about a quarter of them; scores are counted where they are held."""
    (item,) = (item for item in v6e.programs.values() if item.spec.kind == "denoise_from")

    def estimate(attention: str, context: int) -> int:
        placement = replace(item.placement, mesh={"cp": context, "tp": 2})
        forms = replace(item.forms, attention=attention)  # type: ignore[arg-type]
        return temporary(item.spec, v6e.config, placement, forms, 2, 0)

    assert 2 < estimate("pallas", 1) / estimate("pallas", 4) < 4
    scores = 24576**2 // 4 * 16 * (4 + 2)
    assert estimate("plain", 4) - estimate("pallas", 4) > scores * 0.9
    blocked = estimate("blocked", 4) - estimate("pallas", 4)
    assert 0 < blocked <= 512 * 24576 * 16 * 6


def test_a_verdict_looks_at_the_next_program_too(v6e: BuildPlan) -> None:
    """While the text encoder runs the connectors load; the last stage is followed by the audio decoder."""
    found = fits(v6e)
    weights = {name: footprint(item, v6e).weights for name, item in v6e.programs.items()}
    assert found["text_encoder"].next == weights["connectors"]
    assert {fit.capacity for fit in found.values()} == {32 * 10**9}
    assert {fit.verdict for fit in found.values()} == {"fits"}


@pytest.mark.parametrize(
    ("capacity", "verdict"),
    [(100, "fits"), (99, "fits alone"), (70, "fits alone"), (69, "too large"), (None, None)],
)
def test_verdicts(capacity: int | None, verdict: str | None) -> None:
    """Arguments, temp and code count; without a capacity there is none."""
    taken = Footprint(weights=30, arguments=40, temp=20, code=10, estimated=False)
    assert Fit(taken, 30, capacity).verdict == verdict


def test_successors_are_neighbours_of_any_variant(v6e: BuildPlan) -> None:
    """A program that runs twice in a row doesn't follow itself."""
    pairs = successors(variant.plan for variant in v6e.blueprint.variants)
    assert ("text_encoder", "connectors") in pairs
    assert not [pair for pair in pairs if pair[0] == pair[1]]


def test_the_chips_of_the_recipes_are_known() -> None:
    """Every topology that a shipped recipe names has its memory; a host's is not known."""
    assert device_memory("tpu7x:2x2x1") == 96 * 10**9
    assert device_memory(None) is None
    for path in (ROOT / "recipes").glob("*.yaml"):
        topology = load(path).target.topology
        assert topology is None or topology.partition(":")[0] in DEVICE_MEMORY


def test_plan_says_what_fits(ltxbuild: Command) -> None:
    """Before anything is compiled the figures are marked, and the verdict is one sentence."""
    recipe = str(ROOT / "recipes/v6e8_two_stage.yaml")
    done = ltxbuild("plan", recipe, "--programs-only")
    assert "every program fits its devices" in done.err
    assert "~ is an estimate" in done.err
    found = json.loads(ltxbuild("plan", recipe, "--programs-only", "--json").out)["programs"]
    memory = found["text_encoder"]["memory"]
    assert (memory["source"], memory["code"], memory["verdict"]) == ("estimate", None, "fits")
    assert memory["alone"] < memory["with_next"] < memory["device"]


def test_plan_names_what_is_too_large(ltxbuild: Command, tmp_path: Path) -> None:
    """The whole model on one chip of 32 GB."""
    recipe = tmp_path / "one.yaml"
    recipe.write_text(
        f"extends: {ROOT}/recipes/v6e8_two_stage.yaml\n"
        "target: {profile: single, tensor_parallel: 1, context_parallel: 1}\n",
        encoding="utf-8",
    )
    done = ltxbuild("plan", str(recipe), "--programs-only")
    assert done.code == 0
    assert "too large for the memory of its devices: denoise" in done.err
    assert "target.profile" in done.err
