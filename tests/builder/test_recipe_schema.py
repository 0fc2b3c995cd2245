"""The JSON schema of recipe files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ltxbuild.recipe_schema import schema

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def problems(data: Any, part: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    """Fields that a schema doesn't know, and those that it asks for, of mappings inside mappings."""
    part = whole["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
    if not isinstance(data, dict) or "properties" not in part:
        return []
    found = [f"unknown: {name}" for name in data if name not in part["properties"]]
    found += [f"missing: {name}" for name in part.get("required", ()) if name not in data]
    for name in data.keys() & part["properties"].keys():
        found += problems(data[name], part["properties"][name], whole)
    return found


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_fit(path: Path) -> None:
    """Those that extend another one, and those that stand alone."""
    data, made = yaml.safe_load(path.read_text(encoding="utf-8")), schema()
    assert problems(data, made, made) == []
    assert any(data.keys() >= set(each["required"]) for each in made["anyOf"])


def test_a_recipe_that_extends_none_is_whole() -> None:
    """What a recipe needs is asked of it."""
    extending, whole = schema()["anyOf"]
    assert extending == {"required": ["extends"]}
    assert whole["required"] == ["name", "target", "pipeline", "variants"]
    assert whole["properties"] == {"target": {"required": ["platform"]}}
