"""What a build would do: every program and weight set with its key, hit or miss, and its bytes per device.

Imports no jax: a build that finds everything costs no more than this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import structs

from ltx_cache.key import Key
from ltx_cache.store import Hit, Miss, Store
from ltx_run.bundle import Program, WeightSet
from ltxbuild.components import ModelConfig
from ltxbuild.errors import RecipeError
from ltxbuild.model.params import ParamTable, padded
from ltxbuild.plan.forms import choose
from ltxbuild.plan.keys import program_key, weights_key
from ltxbuild.plan.pipeline import Blueprint, blueprint
from ltxbuild.plan.placement import Placement, place
from ltxbuild.plan.profiles import partition
from ltxbuild.plan.programspec import DISTILLED, Forms, ProgramSpec, component_of
from ltxbuild.plan.results import as_form, look_up
from ltxbuild.plan.tables import Tables
from ltxbuild.precision import ITEMSIZE, storage_dtype
from ltxbuild.recipe import Recipe
from ltxbuild.weights.lora import Lora, Loras


@dataclass(frozen=True)
class PlannedProgram:
    """A program, where it runs, its key and what the store has."""

    spec: ProgramSpec
    placement: Placement
    forms: Forms
    key: Key
    found: Hit | Miss

    @property
    def record(self) -> Program | None:
        """The program, if it is built."""
        return program_record(self.found, self.spec) if isinstance(self.found, Hit) else None


@dataclass(frozen=True)
class PlannedWeights:
    """A weight set, its layout, its key and what the store has; no key while there is no checkpoint."""

    name: str
    table: ParamTable
    placement: Placement
    bytes_per_device: int
    loras: tuple[Lora, ...]
    key: Key | None
    found: Hit | Miss | None

    @property
    def record(self) -> WeightSet | None:
        """The weight set, if it is sharded."""
        return as_form(self.found.value, WeightSet) if isinstance(self.found, Hit) else None


def program_record(found: Hit, spec: ProgramSpec) -> Program:
    """What the store has of a program, for a weight set that the key says nothing of."""
    return structs.replace(as_form(found.value, Program), weights=spec.weights)


@dataclass(frozen=True)
class BuildPlan:
    """Everything a recipe needs."""

    recipe: Recipe
    config: ModelConfig
    tables: Tables
    blueprint: Blueprint
    programs: dict[str, PlannedProgram]
    weights: dict[str, PlannedWeights]
    loras: Loras = field(default_factory=Loras)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to build; without a checkpoint, no program."""
        programs = all(isinstance(item.found, Hit) for item in self.programs.values())
        return programs and not any(isinstance(item.found, Miss) for item in self.weights.values())


def plan_build(
    recipe: Recipe,
    config: ModelConfig,
    store: Store,
    files: Mapping[str, str] | None,
    loras: Loras | None = None,
) -> BuildPlan:
    """Plan a build.

    Args:
        recipe: What to build.
        config: Of the model.
        store: Where results are looked up.
        files: Role to sha256 of the checkpoint's files; None to plan programs only.
        loras: To merge into the weights.

    Raises:
        RecipeError: The recipe doesn't fit the model, or lacks weights that its pipeline needs.
    """
    loras = loras or Loras()
    planner = _Planner(recipe, config, store, Tables(config, store), files, loras)
    drawn = blueprint(recipe, config)
    programs = {name: planner.program(spec) for name, spec in drawn.programs.items()}
    weights = {name: planner.weights(name, item) for name, item in planner.readers(programs).items()}
    return BuildPlan(recipe, config, planner.tables, drawn, programs, weights, loras)


@dataclass(frozen=True)
class _Planner:
    """What every item of a plan is made from."""

    recipe: Recipe
    config: ModelConfig
    store: Store
    tables: Tables
    files: Mapping[str, str] | None
    loras: Loras

    def program(self, spec: ProgramSpec) -> PlannedProgram:
        table = self.tables[spec.component] if spec.component else ()
        digest = self.tables.digest(spec.component) if spec.component else None
        placement = place(spec, self.recipe, self.config, table)
        forms = choose(spec, self.recipe, self.config, placement)
        key = program_key(spec, self.recipe, self.config, digest, placement, forms)
        return PlannedProgram(spec, placement, forms, key, look_up(self.store, key, Program))

    def readers(self, programs: Mapping[str, PlannedProgram]) -> dict[str, PlannedProgram]:
        """A program of each weight set, which is stored as that one takes it.

        Raises:
            RecipeError: Another one takes it in another form.
        """
        found: dict[str, PlannedProgram] = {}
        for item in programs.values():
            name = item.spec.weights
            if name is None:
                continue
            first = found.setdefault(name, item)
            if first is not item and self._form(name, first) != self._form(name, item):
                takes = (f"{each.spec.id} on {each.placement.devices} devices" for each in (first, item))
                raise RecipeError(
                    f"recipe {self.recipe.name}: {' and '.join(takes)} read the weights {name} "
                    "in different forms",
                    hint="give both the same platform under `programs:`",
                )
        return found

    def _form(self, name: str, reader: PlannedProgram) -> tuple[object, ...]:
        """How a program takes a weight set."""
        table, placement = self.tables[component_of(name)], reader.placement
        parts = {axis: size for axis, size in placement.mesh.items() if size > 1}
        rules = {axis: split for axis, split in placement.weight_rules(table).items() if split in parts}
        return parts, rules, reader.forms.aliasing

    def weights(self, name: str, reader: PlannedProgram) -> PlannedWeights:
        component, precision, placement = component_of(name), self.recipe.precision, reader.placement
        table = padded(self.tables[component], reader.forms.aliasing)
        size = weight_bytes(table, placement, precision)
        if self.files is None:
            return PlannedWeights(name, table, placement, size, (), None, None)
        if name == DISTILLED and "distilled" not in self.files and not self.loras.distilled:
            raise RecipeError(
                f"recipe {self.recipe.name}: pipeline {self.recipe.pipeline} needs distilled weights",
                hint="set checkpoint.distilled_lora in the recipe or pass --distilled-lora FILE",
            )
        files, loras = source_files(name, self.files), self.loras.touching(name, table)
        digest = self.tables.digest(component)
        aliasing = reader.forms.aliasing if any(spec.padding for spec in table) else 0
        rules = placement.weight_rules(table)
        key = weights_key(component, precision, digest, aliasing, placement.mesh, rules, files, loras)
        found = look_up(self.store, key, WeightSet)
        return PlannedWeights(name, table, placement, size, loras, key, found)


def source_files(weight_set: str, files: Mapping[str, str]) -> dict[str, str]:
    """The files that a weight set's tensors can come from, by role."""
    if weight_set == DISTILLED and "distilled" in files:
        return {"model": files["distilled"]}
    component = component_of(weight_set)
    roles = {"text_encoder": ("text_encoder", "model"), "upsampler": ("upsampler", "model")}
    return {role: digest for role, digest in files.items() if role.startswith(roles.get(component, "model"))}


def weight_bytes(table: ParamTable, placement: Placement, precision: str) -> int:
    """Weight bytes on each device."""
    total = 0
    for spec in table:
        parts = math.prod(placement.mesh[axis] for axis in partition(spec, placement.rules) if axis)
        total += spec.size // parts * ITEMSIZE[storage_dtype(spec, precision)]
    return total
