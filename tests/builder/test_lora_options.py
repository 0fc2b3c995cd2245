"""LoRAs in recipes and on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ltxbuild.cli.main import cli
from ltxbuild.cli.options import checkpoint_options
from ltxbuild.cli.planning import CheckpointOverrides, read_recipe
from ltxbuild.errors import CheckpointError, RecipeError
from ltxbuild.recipe import load
from ltxbuild.synthetic.checkpoint import write_checkpoint, write_lora
from ltxbuild.weights.checkpoint import LoraFile
from ltxbuild.weights.fetch import locate

RECIPE = """
name: mini
target: {platform: cpu}
pipeline: distilled_one_stage
variants: {default: {height: 64, width: 96, frames: 9}}
"""


def recipe(folder: Path, checkpoint: str) -> Path:
    """A recipe file with a checkpoint section."""
    path = folder / "mini.yaml"
    path.write_text(f"{RECIPE}checkpoint: {checkpoint}\n", encoding="utf-8")
    return path


def test_recipes_name_loras(tmp_path: Path) -> None:
    """Paths are the recipe's own, the strength is 1 unless given."""
    text = "{loras: [{file: a.safetensors}, {file: hf://o/r/b, strength: -2}], distilled_lora: {file: c}}"
    section = load(recipe(tmp_path, text)).checkpoint
    assert [(lora.file, lora.strength) for lora in section.loras] == [
        (str(tmp_path / "a.safetensors"), 1.0),
        ("hf://o/r/b", -2.0),
    ]
    assert section.distilled_lora
    assert section.distilled_lora.file == str(tmp_path / "c")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{loras: [{file: a, strenth: 1}]}", "unknown field; did you mean 'strength'?"),
        ("{loras: [{strength: 1}]}", "checkpoint.loras.0.file: missing"),
        ("{loras: [{file: a, strength: .inf}]}", "checkpoint.loras.0.strength"),
        ("{distilled: a, distilled_lora: {file: b}}", "takes one of them"),
    ],
)
def test_recipes_with_bad_loras_are_refused(tmp_path: Path, text: str, part: str) -> None:
    """The message names the field."""
    with pytest.raises(RecipeError) as caught:
        load(recipe(tmp_path, text))
    assert part in caught.value.message


def test_distilled_weights_are_located_where_a_pipeline_needs_them(tmp_path: Path) -> None:
    """LoRAs always; the second stage's source only for pipelines that have one, and then it must be named."""
    named = load(
        recipe(tmp_path, "{model: m, text_encoder: t, loras: [{file: a}], distilled_lora: {file: c}}")
    )
    plain = locate(named, with_upsampler=False)
    assert (plain.loras, plain.distilled_lora) == ((LoraFile(tmp_path / "a"),), None)
    found = locate(named, with_upsampler=False, with_distilled=True)
    assert found.distilled_lora == LoraFile(tmp_path / "c")
    file = load(recipe(tmp_path, "{model: m, text_encoder: t, distilled: d}"))
    assert locate(file, with_upsampler=False, with_distilled=True).distilled == tmp_path / "d"
    neither = load(recipe(tmp_path, "{model: m, text_encoder: t}"))
    with pytest.raises(CheckpointError, match=r"names no checkpoint\.distilled_lora"):
        locate(neither, with_upsampler=False, with_distilled=True)


def given(*arguments: str) -> CheckpointOverrides:
    """What the options of a command say of the checkpoint."""
    seen: list[CheckpointOverrides] = []

    def command(overrides: CheckpointOverrides, **_: object) -> None:
        seen.append(overrides)

    CliRunner().invoke(click.command()(checkpoint_options(command)), arguments, standalone_mode=False)
    return seen[0]


def test_options_name_loras_with_strengths(tmp_path: Path) -> None:
    """A strength follows the last colon; the one of hf:// is none. Options replace what the recipe says."""
    overrides = given(
        "--lora", "a.safetensors:0.5", "--lora", "hf://o/r/b", "--distilled-lora", "hf://o/r/c:2"
    )
    assert overrides.loras
    assert [(lora.file, lora.strength) for lora in overrides.loras] == [
        ("a.safetensors", 0.5),
        ("hf://o/r/b", 1.0),
    ]
    path = recipe(tmp_path, "{loras: [{file: x}], distilled: y}")
    section = read_recipe(path, overrides).checkpoint
    assert (section.loras, section.distilled) == (overrides.loras, None)
    assert section.distilled_lora
    assert (section.distilled_lora.file, section.distilled_lora.strength) == ("hf://o/r/c", 2.0)
    assert len(read_recipe(path, given()).checkpoint.loras) == 1
    with pytest.raises(RecipeError, match="exclude each other"):
        read_recipe(path, given("--distilled", "a", "--distilled-lora", "b"))


@pytest.mark.parametrize("value", ["a.safetensors:strong", "a:nan", "a:"])
def test_a_bad_strength_is_refused(tmp_path: Path, value: str) -> None:
    """The option's error shows the value."""
    done = CliRunner().invoke(cli, ["plan", str(recipe(tmp_path, "{}")), "--lora", value])
    assert done.exit_code == 2
    assert "is not a strength" in done.output


def test_plan_shows_what_a_lora_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line to the plan: the transformer has a LoRA, nothing else does."""
    monkeypatch.setenv("LTX_HOME", str(tmp_path / "home"))
    model, text_encoder, _ = write_checkpoint(tmp_path)
    path = recipe(tmp_path, f"{{model: {model}, text_encoder: {text_encoder}}}")
    options = ["plan", str(path), "--json", "--lora", f"{write_lora(tmp_path)}:0.5"]
    done = CliRunner().invoke(cli, options, catch_exceptions=False)
    weights = json.loads(done.output)["weights"]
    assert {name for name, item in weights.items() if item["loras"]} == {"transformer"}
