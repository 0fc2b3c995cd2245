"""Where each component runs: platform, mesh and partition rules that follow from recipe and profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ltxbuild.components import ModelConfig
from ltxbuild.model.params import ParamTable
from ltxbuild.plan.profiles import PROFILES, check_divides, device_count
from ltxbuild.plan.programspec import ProgramSpec
from ltxbuild.recipe import Recipe
from ltxbuild.targets import target


@dataclass(frozen=True)
class Placement:
    """Placement of one program or weight set.

    Attributes:
        platform: Target platform.
        mesh: Mesh axes and sizes; empty is one device.
        rules: Logical axis to mesh axis.
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

    def parts(self, axis: str) -> int:
        """Devices that a logical axis is split over."""
        return self.mesh[self.rules[axis]] if axis in self.rules else 1

    def weight_rules(self, table: ParamTable) -> dict[str, str]:
        """The rules that concern weights: those of axes that the table has."""
        return {axis: split for axis, split in self.rules.items() if any(axis in spec.axes for spec in table)}


def place(spec: ProgramSpec, recipe: Recipe, config: ModelConfig, table: ParamTable) -> Placement:
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
    mesh, rules = _layout(spec, recipe, config, table) if own else ({}, {})
    return Placement(
        platform, mesh, rules, chosen.machine(recipe.target), {**chosen.flags(spec.kind), **asked}
    )


def _platform(spec: ProgramSpec, recipe: Recipe) -> str:
    platform = recipe.target.platform
    return platform if target(platform).runs(spec.kind) else "cpu"


def _layout(
    spec: ProgramSpec, recipe: Recipe, config: ModelConfig, table: ParamTable
) -> tuple[dict[str, int], dict[str, str]]:
    """Mesh and rules of a program; both empty where the profile splits none of its weights."""
    if spec.component is None:
        return {}, {}
    layout = PROFILES[recipe.target.profile].layout(spec.component)
    mesh, rules = layout.mesh(recipe.target.degrees), dict(layout.rules)
    check_divides(table, extents(spec, config), rules, mesh)
    return mesh, rules


def extents(spec: ProgramSpec, config: ModelConfig) -> dict[str, int]:
    """Sizes of the logical axes of a program that its weights don't show."""
    sizes: dict[str, Any] = dict(spec.geometry)
    if spec.kind.startswith("denoise"):
        return {"tokens": (sizes["frames"] + sizes.get("keyframes", 0)) * sizes["height"] * sizes["width"]}
    if spec.component == "text_encoder":
        return {"heads": config.gemma.num_key_value_heads}
    return {}
