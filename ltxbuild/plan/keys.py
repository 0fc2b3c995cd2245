"""Keys of programs and weight sets: every factor that can change the result, and nothing else.

| kind | factor | what it holds |
|---|---|---|
| program | `program` | kind of the program |
| program | `geometry` | named sizes |
| program | `config` | the config sections of its component |
| program | `table` | digest of its parameter table |
| program | `precision` | compute dtype |
| program | `options` | layer and attention form |
| program | `mesh` | mesh axes and sizes |
| program | `rules` | logical axis to mesh axis |
| program | `target` | platform, topology, instruction set |
| program | `flags` | compiler flags |
| program | `compiler` | versions of the compiler packages |
| program | `tools` | versions of compilers that are programs of their own |
| program | `portable` | whether the bundle carries the program's portable form |
| program | `sources` | digest of the builder's sources that reach it |
| weights | `component` | name of the component |
| weights | `files` | sha256 of each source file |
| weights | `loras` | sha256 and strength of each LoRA that touches it, in order |
| weights | `table` | digest of the parameter table |
| weights | `precision` | storage dtype |
| weights | `aliasing` | length at whose multiples rows are padded; 0 where none are |
| weights | `mesh` | mesh axes and sizes |
| weights | `rules` | logical axis to mesh axis |
| weights | `writer` | version of the shard file layout |

A program key has no weights, paths or times in it; a weights key has no picture sizes and no compiler flags,
so half and full resolution share one weight set. Compiles run in a scrubbed environment (see `worker.py`),
so no environment variable is a factor.

What such a compiler reads is a result too, of kind `graph`, and depends on neither flags nor tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ltx_cache.key import Factor, Key
from ltxbuild.components import COMPONENTS, ModelConfig
from ltxbuild.plan.placement import Placement
from ltxbuild.plan.programspec import Forms, ProgramSpec
from ltxbuild.plan.sources import source_digest
from ltxbuild.programs import MODULES
from ltxbuild.recipe import Recipe
from ltxbuild.targets import target
from ltxbuild.targets.target import Target
from ltxbuild.weights.lora import Lora

SHARD_LAYOUT = 1
"""Raise when the bytes of shard files change for the same inputs."""


def program_key(
    spec: ProgramSpec,
    recipe: Recipe,
    config: ModelConfig,
    table: str | None,
    placement: Placement,
    forms: Forms,
) -> Key:
    """Key of one program; `table` is the digest of its component's parameter table."""
    component = COMPONENTS[spec.component] if spec.component else None
    chosen = target(placement.platform)
    factors: dict[str, Any] = {
        "program": spec.kind,
        "geometry": dict(spec.geometry),
        "config": component.config(config) if component else [config.ltx.transformer.model_dump(mode="json")],
        "table": table,
        "precision": recipe.precision,
        "options": forms.json(),
        "mesh": [list(axis) for axis in placement.mesh.items()],
        "rules": placement.rules,
        "target": placement.target,
        "flags": placement.flags,
        "compiler": compiler_versions(placement.platform),
        "tools": chosen.tools(recipe.target),
        "portable": recipe.portable and chosen.assembler is None,
        "sources": source_digest(*_code(chosen), MODULES[spec.kind]),
    }
    return Key("program", tuple(Factor(name, value) for name, value in factors.items()))


def weights_key(
    component: str,
    precision: str,
    table: str,
    aliasing: int,
    mesh: Mapping[str, int],
    rules: Mapping[str, str],
    files: Mapping[str, str],
    loras: Sequence[Lora],
) -> Key:
    """Key of one weight set; `files` maps a file's role to its sha256."""
    factors: dict[str, Any] = {
        "component": component,
        "files": dict(files),
        "loras": [{"sha256": lora.sha256, "strength": lora.strength} for lora in loras],
        "table": table,
        "precision": precision,
        "aliasing": aliasing,
        "mesh": [list(axis) for axis in mesh.items()],
        "rules": dict(rules),
        "writer": SHARD_LAYOUT,
    }
    return Key("weights", tuple(Factor(name, value) for name, value in factors.items()))


def _code(chosen: Target) -> list[str]:
    """The builder's modules that compile for a target."""
    return [chosen.backend, *([chosen.assembler] if chosen.assembler else [])]


@cache
def compiler_versions(platform: str) -> dict[str, str]:
    """Installed versions of the packages whose code generation a program depends on."""
    versions = {}
    for package in target(platform).packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
