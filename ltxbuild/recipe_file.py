"""Recipe files: YAML, laid over the recipes that they extend."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

from ltxbuild.errors import RecipeError


def read(path: Path) -> dict[str, Any]:
    """The mapping of a recipe file, `extends` followed and local paths absolute; its fields are not checked.

    Raises:
        RecipeError: A file is missing or isn't YAML, or recipes extend each other in a circle.
    """
    data = _merged(path, ())
    _anchor_paths(data, path)
    return data


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys instead of keeping the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, refusing a key that appears twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _merged(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The recipe's mapping laid over the one it extends."""
    resolved = path.resolve()
    if resolved in seen:
        raise RecipeError(f"{path} extends itself: {' -> '.join(p.name for p in (*seen, resolved))}")
    data = _read(path)
    base = data.pop("extends", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise RecipeError(f"{path}: extends: {base!r} is not the name of a recipe file")
    base_path = path.parent / base
    below = _merged(base_path, (*seen, resolved))
    _anchor_paths(below, base_path)
    return _overlay(below, data)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        known = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], 1)
        near = f"; did you mean {path.parent / known[0]}?" if known else ""
        raise RecipeError(f"cannot read recipe {path}: {error.strerror}{near}") from None
    try:
        data = yaml.load(text, _StrictLoader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of fields, this is {type(data).__name__}")
    return data


def _overlay(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "variants"
        merged[key] = _overlay(merged[key], value) if both else value
    return merged


def _anchor_paths(data: dict[str, Any], path: Path) -> None:
    """Make local checkpoint paths relative to the recipe that names them."""
    section = data.get("checkpoint")
    if not isinstance(section, dict):
        return
    loras = section.get("loras")
    entries = [section.get("distilled_lora"), *(loras if isinstance(loras, list) else [])]
    for field in ("model", "text_encoder", "upsampler", "distilled"):
        _anchor(section, field, path)
    for entry in entries:
        if isinstance(entry, dict):
            _anchor(entry, "file", path)


def _anchor(section: dict[str, Any], field: str, path: Path) -> None:
    value = section.get(field)
    if isinstance(value, str) and "://" not in value and not Path(value).is_absolute():
        section[field] = str((path.parent / value).resolve())
