"""Laws of keys: everything that can change a result changes the key, and nothing else does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ltx_cache.key import Key
from ltx_cache.store import Store
from ltxbuild.plan import keys
from ltxbuild.plan.planner import plan_build
from ltxbuild.recipe import Recipe
from ltxbuild.synthetic.shipped import shipped_config

BASE: dict[str, Any] = {
    "name": "law",
    "target": {"platform": "cpu", "isa": "avx2"},
    "pipeline": "distilled_two_stage",
    "variants": {"default": {"height": 128, "width": 192, "frames": 17, "fps": 24}},
}
FILES = {"model": "a" * 64, "text_encoder/model.safetensors": "b" * 64, "upsampler": "c" * 64}


def planned(tmp_path: Path, files: dict[str, str] = FILES, **changes: Any) -> dict[str, Key]:
    """Keys of a recipe with changes, by program and weight set."""
    data = {**BASE, **changes}
    plan = plan_build(Recipe.model_validate(data), shipped_config("ltx-2.3-tiny"), Store(tmp_path), files)
    found = {f"program {item.spec.kind}": item.key for item in plan.programs.values()}
    return found | {f"weights {name}": item.key for name, item in plan.weights.items() if item.key}


def changed(before: dict[str, Key], after: dict[str, Key]) -> set[str]:
    """Names whose key differs."""
    assert before.keys() == after.keys()
    return {name for name in before if before[name].digest != after[name].digest}


def test_the_documented_factors_are_the_factors(tmp_path: Path) -> None:
    """The table in the module's docstring lists exactly what the keys hold, in order."""
    rows = re.findall(r"^\| (program|weights) \| `(\w+)` \|", keys.__doc__ or "", re.MULTILINE)
    found = planned(tmp_path)
    for kind, name in (("program", "program denoise"), ("weights", "weights transformer")):
        assert [factor for k, factor in rows if k == kind] == [f.name for f in found[name].factors]


def test_a_name_or_a_path_changes_nothing(tmp_path: Path) -> None:
    """Renaming the recipe and moving the checkpoint leave every key alone."""
    moved = planned(tmp_path, name="other", checkpoint={"model": "/elsewhere/model.safetensors"})
    assert changed(planned(tmp_path), moved) == set()


def test_the_picture_changes_programs_only(tmp_path: Path) -> None:
    """Another size rebuilds what depends on it: no weights, no text, no sound."""
    wider = {"default": {**BASE["variants"]["default"], "width": 256}}
    different = changed(planned(tmp_path), planned(tmp_path, variants=wider))
    pictures = {"denoise", "denoise_from", "upsampler", "video_decoder"}
    assert different == {f"program {kind}" for kind in pictures}


def test_another_checkpoint_changes_weights_only(tmp_path: Path) -> None:
    """A file's digest is a factor of the weight sets that can come from it, and of no program."""
    base = planned(tmp_path)
    assert changed(base, planned(tmp_path, {**FILES, "upsampler": "d" * 64})) == {"weights upsampler"}
    text = planned(tmp_path, {**FILES, "text_encoder/model.safetensors": "d" * 64})
    assert changed(base, text) == {"weights text_encoder"}
    model = changed(base, planned(tmp_path, {**FILES, "model": "d" * 64}))
    assert model == {name for name in base if name.startswith("weights")}


@pytest.mark.parametrize(
    ("change", "spared"),
    [
        ({"precision": "float32"}, set()),
        ({"attention": "blocked"}, {"weights"}),
        ({"portable": True}, {"weights"}),
        ({"target": {"platform": "cpu", "isa": "sse4"}}, {"weights"}),
        ({"target": {**BASE["target"], "flags": {"xla_cpu_enable_fast_math": True}}}, {"weights"}),
    ],
)
def test_options_change_what_they_reach(tmp_path: Path, change: dict[str, Any], spared: set[str]) -> None:
    """Programs follow precision, form, instruction set and flags; weights follow the precision alone."""
    base = planned(tmp_path)
    expected = {name for name in base if name.split()[0] not in spared}
    assert changed(base, planned(tmp_path, **change)) == expected


def test_asking_for_the_form_that_auto_takes_changes_nothing(tmp_path: Path) -> None:
    """On a CPU most layers are written out; loops are other programs, same weights."""
    base, loops = planned(tmp_path), {"program video_decoder", "program vocoder"}
    assert changed(base, planned(tmp_path, layers="unroll")) == loops
    programs = {name for name in base if name.startswith("program")}
    assert changed(base, planned(tmp_path, layers="scan")) == programs - loops


def test_splitting_changes_split_components_only(tmp_path: Path) -> None:
    """Tensor parallelism rebuilds what the profile splits, and nothing of the decoders."""
    target = {**BASE["target"], "tensor_parallel": 4, "profile": "trn2"}
    different = changed(planned(tmp_path), planned(tmp_path, target=target))
    assert {name.split()[1] for name in different if name.startswith("weights")} == {
        "text_encoder",
        "connectors",
        "transformer",
    }
    assert "program video_decoder" not in different


H200 = {"platform": "cuda", "topology": "h200"}


@pytest.mark.parametrize(
    ("change", "aliasing"),
    [
        ({}, 2048),
        ({"precision": "float32"}, 0),
        ({"target": {"platform": "cpu", "tensor_parallel": 4, "profile": "trn2"}}, 0),
        ({"target": H200}, 0),
        ({"target": H200, "programs": {"denoise": {"platform": "cpu"}}}, 0),
    ],
)
def test_rows_are_padded_for_products_of_bf16_on_a_cpu(
    tmp_path: Path, change: dict[str, Any], aliasing: int
) -> None:
    """Weights of the full model follow; those of the decoders, which have no such rows, stay the same."""
    recipe = Recipe.model_validate({**BASE, **change})
    plan = plan_build(recipe, shipped_config("ltx-2.3-22b"), Store(tmp_path), FILES)
    weights = {name: item.key.values["aliasing"] for name, item in plan.weights.items() if item.key}
    products = {"text_encoder", "connectors", "transformer"}
    assert weights == {name: aliasing if name in products else 0 for name in plan.weights}


def test_another_compiler_changes_every_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler's version is a factor of all programs."""
    base = planned(tmp_path)
    monkeypatch.setattr(keys, "compiler_versions", lambda platform: {"jaxlib": "0.99.0"})
    assert changed(base, planned(tmp_path)) == {name for name in base if name.startswith("program")}


def test_a_variable_of_the_environment_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XLA_FLAGS of the caller neither reaches the compiler nor the key."""
    base = planned(tmp_path)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert changed(base, planned(tmp_path)) == set()


PRINT_KEYS = """
import json, sys
from pathlib import Path
from ltx_cache.store import Store
from ltxbuild.plan.planner import plan_build
from ltxbuild.recipe import Recipe
from ltxbuild.synthetic.shipped import shipped_config
base, files = json.loads(sys.argv[1])
plan = plan_build(Recipe.model_validate(base), shipped_config("ltx-2.3-tiny"), Store(Path("store")), files)
print(json.dumps({name: item.key.digest for name, item in plan.programs.items()}))
"""


def test_two_processes_agree(tmp_path: Path) -> None:
    """Another hash seed and another working directory give the same keys."""
    found = []
    for seed in ("0", "4242"):
        folder = tmp_path / seed
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", PRINT_KEYS, json.dumps([BASE, FILES])],
            cwd=folder,
            env={"PYTHONHASHSEED": seed, "HOME": str(folder)},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        found.append(done.stdout)
    assert found[0] == found[1]
    assert len(json.loads(found[0])) > 5
