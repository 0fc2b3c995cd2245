"""JSON schema of recipe files, for editors.

Example:
    >>> sorted(schema()["properties"])[:3]
    ['attention', 'checkpoint', 'extends']
"""

from __future__ import annotations

from typing import Any

from ltxbuild.recipe import Recipe


def schema() -> dict[str, Any]:
    """The schema. Of a file with `extends` nothing else is required, since the other file may have it."""
    whole = Recipe.model_json_schema()
    target = whole["$defs"]["TargetSection"]
    required = {
        "required": whole.pop("required"),
        "properties": {"target": {"required": target.pop("required")}},
    }
    extends = {"type": "string", "description": "recipe file that this one is laid over"}
    whole["properties"] = {"extends": extends, **whole["properties"]}
    return {**whole, "anyOf": [{"required": ["extends"]}, required]}
