"""Where each component runs: platform, mesh and partition rules that follow from recipe and profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ltxbuild.model.params import ParamTable
from ltxbuild.plan.profiles import PROFILES, check_divides, device_count, partition
from ltxbuild.plan.programspec import ProgramSpec
from ltxbuild.recipe import Recipe
from ltxbuild.targets import target


@dataclass(frozen=True)
class Placement:
    """Placement of one program or weight set.

    Attributes:
        platform: Target platform.
        mesh: Mesh axes and sizes; empty is one device.
        rules: Logical axis to mesh axis, for the axes the component has.
        target: What the compiler must know of the machine; part of the program key.
        flags: Compiler flags.
    """

    platform: str
    mesh: dict[str, int]
    rules: dict[str, str]
    target: dict[str, Any]
    flags: dict[str, Any]

    @property
    def devices(self) -> int:
        """Devices the program spans."""
        return device_count(self.mesh)


def place(spec: ProgramSpec, recipe: Recipe, table: ParamTable) -> Placement:
    """Placement of a program whose component has that parameter table.

    A component of which the profile splits nothing runs on one device: replicating its arithmetic would
    only cost. So does a program that runs on the host's CPU beside the accelerator.

    Raises:
        RecipeError: A split axis doesn't divide.
    """
    override = recipe.programs.get(spec.kind)
    platform = override.platform if override and override.platform else _platform(spec, recipe)
    chosen, own = target(platform), platform == recipe.target.platform
    asked = {**(recipe.target.flags if own else {}), **(override.flags if override else {})}
    mesh, rules = weights_layout(table, recipe) if own else ({}, {})
    return Placement(platform, mesh, rules, chosen.machine(recipe.target), {**chosen.flags, **asked})


def _platform(spec: ProgramSpec, recipe: Recipe) -> str:
    platform = recipe.target.platform
    return platform if target(platform).runs(spec.kind) else "cpu"


def weights_layout(table: ParamTable, recipe: Recipe) -> tuple[dict[str, int], dict[str, str]]:
    """Mesh and rules of a component's weights; both empty when the profile splits none of them.

    Raises:
        RecipeError: A split axis doesn't divide.
    """
    rules = {
        axis: mesh_axis
        for axis, mesh_axis in PROFILES[recipe.target.profile].rules.items()
        if any(axis in spec.axes for spec in table)
    }
    mesh = recipe.target.mesh
    if not rules or not _splits(table, rules):
        return {}, {}
    check_divides(table, rules, mesh)
    return mesh, rules


def _splits(table: ParamTable, rules: dict[str, str]) -> bool:
    return any(any(partition(spec, rules)) for spec in table)
