"""Recipes: what is accepted, and what the message says when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltxbuild.errors import RecipeError
from ltxbuild.recipe import load

RECIPES = Path(__file__).parents[2] / "recipes"

MINIMAL = """
name: mini
target: {platform: cpu}
pipeline: distilled_one_stage
variants:
  default: {height: 64, width: 96, frames: 9}
"""


def write(folder: Path, text: str, name: str = "mini.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    """A recipe in the repository loads, and its name follows from its file name."""
    assert load(path).name == path.stem.replace("_", "-")


def test_defaults(tmp_path: Path) -> None:
    """What a recipe leaves out has the documented default."""
    recipe = load(write(tmp_path, MINIMAL))
    assert (recipe.precision, recipe.loop, recipe.layers) == ("bfloat16", "fused", "auto")
    assert recipe.target.devices == 1
    assert recipe.variants["default"].fps == 24


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            MINIMAL.replace("platform:", "platfrom:"),
            ["target.platfrom", "did you mean 'platform'?", "topology"],
        ),
        (MINIMAL.replace("cpu", "gpu"), ["target.platform", "'cpu', 'cuda', 'tpu' or 'neuron'", "'gpu'"]),
        (MINIMAL.replace("height: 64", "height: 65"), ["variants.default.height", "multiple of 32", "65"]),
        (MINIMAL.replace("frames: 9", "frames: 12"), ["variants.default.frames", "8k+1", "9 and 17", "12"]),
        (MINIMAL.replace("name: mini", "name: ../mini"), ["name", "'../mini'"]),
        (MINIMAL.replace("one_stage", "two_stage"), ["width is 96", "multiple of 64", "64 or 128"]),
        (
            MINIMAL.replace("one_stage", "two_stage") + "upsample: spatial_x1.5\n",
            ["height is 64", "multiple of 96", "96 or 192"],
        ),
        (
            MINIMAL.replace("one_stage", "two_stage") + "upsample: temporal_x2\n",
            ["frames is 9", "multiple of 16 plus 1", "17 or 33"],
        ),
        (MINIMAL + "upsample: spatial_x2\n", ["upsample is spatial_x2", "distilled_one_stage has no"]),
        (MINIMAL + "upsample: x4\n", ["upsample", "'spatial_x2', 'spatial_x1.5' or 'temporal_x2'", "'x4'"]),
        (MINIMAL + "colour: red\n", ["colour: unknown field", "allowed:", "extends"]),
        (MINIMAL.replace("cpu}", "cpu, profile: trilium}"), ["target.profile", "trillium", "'trilium'"]),
        (MINIMAL.replace("cpu}", "cpu, tensor_parallel: 4}"), ["'single' uses one device"]),
        (MINIMAL.replace("pipeline: distilled_one_stage", ""), ["pipeline: missing"]),
        (MINIMAL + "name: again\n", ["'name' appears twice"]),
        ("- a list", ["mapping"]),
        ("a: [", ["not valid YAML"]),
    ],
)
def test_a_bad_recipe_says_what_is_wrong(tmp_path: Path, text: str, parts: list[str]) -> None:
    """The message names the file, the field, the value and what is allowed."""
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load(path)
    for part in parts:
        assert part in caught.value.message
    assert caught.value.exit_code == 2


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    """Two mistakes give two lines."""
    path = write(tmp_path, MINIMAL.replace("height: 64", "height: 65").replace("cpu", "gpu"))
    with pytest.raises(RecipeError, match="height") as caught:
        load(path)
    assert "target.platform" in caught.value.message


def test_a_missing_recipe_names_the_nearest(tmp_path: Path) -> None:
    """A typing error in the file name is guessed."""
    write(tmp_path, MINIMAL)
    with pytest.raises(RecipeError, match=r"did you mean .*mini\.yaml"):
        load(tmp_path / "mimi.yaml")


def test_extends_lays_one_recipe_over_another(tmp_path: Path) -> None:
    """Sections merge field by field, variants are replaced; paths stay with the file that names them."""
    (tmp_path / "sub").mkdir()
    write(tmp_path, MINIMAL + "checkpoint: {model: w/model.safetensors}\n")
    child = write(
        tmp_path / "sub",
        "extends: ../mini.yaml\nname: child\ntarget: {tensor_parallel: 4, profile: trn2}\n"
        "checkpoint: {text_encoder: gemma}\nvariants: {big: {height: 96, width: 96, frames: 17}}\n",
        "child.yaml",
    )
    recipe = load(child)
    assert recipe.target.platform == "cpu"
    assert recipe.target.degrees == {"cp": 1, "tp": 4}
    assert list(recipe.variants) == ["big"]
    assert recipe.checkpoint.model == str(tmp_path / "w/model.safetensors")
    assert recipe.checkpoint.text_encoder == str(tmp_path / "sub/gemma")


def test_a_circle_of_extends_is_refused(tmp_path: Path) -> None:
    """Two recipes that extend each other are named in order."""
    write(tmp_path, "extends: b.yaml\n", "a.yaml")
    write(tmp_path, "extends: a.yaml\n", "b.yaml")
    with pytest.raises(RecipeError, match=r"a\.yaml -> b\.yaml -> a\.yaml"):
        load(tmp_path / "a.yaml")
