"""What a build would do: every program and weight set with its key, hit or miss, and its bytes per device.

Imports no jax: a build that finds everything costs no more than this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import convert

from ltx_cache.key import Key
from ltx_cache.store import Hit, Miss, Store
from ltx_run.bundle import Program, WeightSet
from ltxbuild.components import ModelConfig
from ltxbuild.keys import program_key, weights_key
from ltxbuild.model.params import ParamTable
from ltxbuild.pipeline import Blueprint, blueprint
from ltxbuild.placement import Placement, place
from ltxbuild.precision import ITEMSIZE, storage_dtype
from ltxbuild.profiles import partition
from ltxbuild.programspec import ProgramSpec
from ltxbuild.recipe import Recipe
from ltxbuild.tables import Tables

SCORES_LIMIT = 1 << 30
"""Bytes of attention scores above which `attention: auto` goes through the queries in blocks."""


@dataclass(frozen=True)
class PlannedProgram:
    """A program, where it runs, its key and what the store has."""

    spec: ProgramSpec
    placement: Placement
    attention: str
    key: Key
    found: Hit | Miss

    @property
    def record(self) -> Program | None:
        """The program, if it is built."""
        return convert(self.found.value, Program) if isinstance(self.found, Hit) else None


@dataclass(frozen=True)
class PlannedWeights:
    """A weight set, its layout, its key and what the store has; no key while there is no checkpoint."""

    component: str
    placement: Placement
    bytes_per_device: int
    key: Key | None
    found: Hit | Miss | None

    @property
    def record(self) -> WeightSet | None:
        """The weight set, if it is sharded."""
        return convert(self.found.value, WeightSet) if isinstance(self.found, Hit) else None


@dataclass(frozen=True)
class BuildPlan:
    """Everything a recipe needs."""

    recipe: Recipe
    config: ModelConfig
    tables: Tables
    blueprint: Blueprint
    programs: dict[str, PlannedProgram]
    weights: dict[str, PlannedWeights]

    @property
    def complete(self) -> bool:
        """Whether nothing is left to build."""
        programs = all(isinstance(item.found, Hit) for item in self.programs.values())
        return programs and all(isinstance(item.found, Hit) for item in self.weights.values())


def plan_build(
    recipe: Recipe, config: ModelConfig, store: Store, files: Mapping[str, str] | None
) -> BuildPlan:
    """Plan a build.

    Args:
        recipe: What to build.
        config: Of the model.
        store: Where results are looked up.
        files: Role to sha256 of the checkpoint's files; None to plan programs only.

    Raises:
        RecipeError: The recipe doesn't fit the model.
    """
    planner = _Planner(recipe, config, store, Tables(config, store), files)
    drawn = blueprint(recipe, config)
    programs = {name: planner.program(spec) for name, spec in drawn.programs.items()}
    placements = {item.spec.component: item.placement for item in programs.values()}
    weights = {name: planner.weights(name, placement) for name, placement in placements.items() if name}
    return BuildPlan(recipe, config, planner.tables, drawn, programs, weights)


@dataclass(frozen=True)
class _Planner:
    """What every item of a plan is made from."""

    recipe: Recipe
    config: ModelConfig
    store: Store
    tables: Tables
    files: Mapping[str, str] | None

    def program(self, spec: ProgramSpec) -> PlannedProgram:
        table = self.tables[spec.component] if spec.component else ()
        digest = self.tables.digest(spec.component) if spec.component else None
        placement = place(spec, self.recipe, table)
        attention = choose_attention(spec, self.recipe, self.config, placement)
        options = {"layers": self.recipe.layers, "attention": attention}
        key = program_key(spec, self.recipe, self.config, digest, placement, options)
        return PlannedProgram(spec, placement, attention, key, self.store.lookup(key))

    def weights(self, name: str, placement: Placement) -> PlannedWeights:
        size = weight_bytes(self.tables[name], placement, self.recipe.precision)
        if self.files is None:
            return PlannedWeights(name, placement, size, None, None)
        files = component_files(name, self.files)
        key = weights_key(name, self.recipe.precision, self.tables.digest(name), placement, files)
        return PlannedWeights(name, placement, size, key, self.store.lookup(key))


def component_files(component: str, files: Mapping[str, str]) -> dict[str, str]:
    """The files that a component's tensors can come from."""
    roles = {"text_encoder": ("text_encoder", "model"), "upsampler": ("upsampler", "model")}
    return {role: digest for role, digest in files.items() if role.startswith(roles.get(component, "model"))}


def weight_bytes(table: ParamTable, placement: Placement, precision: str) -> int:
    """Weight bytes on each device."""
    total = 0
    for spec in table:
        parts = math.prod(placement.mesh[axis] for axis in partition(spec, placement.rules) if axis)
        total += spec.size // parts * ITEMSIZE[storage_dtype(spec, precision)]
    return total


def choose_attention(spec: ProgramSpec, recipe: Recipe, config: ModelConfig, placement: Placement) -> str:
    """`plain` or `blocked`, by the size of the largest score matrix on one device."""
    if recipe.attention != "auto":
        return recipe.attention
    sizes: dict[str, Any] = dict(spec.geometry)
    heads = (
        config.gemma.num_attention_heads
        if spec.kind == "text_encoder"
        else config.ltx.transformer.num_attention_heads
    )
    if spec.component == "transformer":
        tokens = sizes["frames"] * sizes["height"] * sizes["width"]
        longest = tokens * max(tokens, sizes["length"])
    elif spec.kind in ("text_encoder", "connectors"):
        longest = sizes["length"] ** 2
    else:
        return "plain"
    scores = 4 * longest * heads // placement.devices
    return "blocked" if scores > SCORES_LIMIT else "plain"
