"""The topology that a recipe names, checked against those of its platform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ltxbuild.errors import RecipeError

if TYPE_CHECKING:
    from ltxbuild.targets.section import TargetSection


def known(section: TargetSection, platform: str, topologies: Mapping[str, int]) -> str:
    """The section's topology.

    Args:
        section: Of a recipe.
        platform: The target, which a program's may override.
        topologies: Devices of each topology of its platform.

    Raises:
        RecipeError: It is missing or unknown, or the mesh has another number of devices. A recipe that splits
            nothing runs on one device of any topology.
    """
    name, devices = section.topology, section.devices
    if name is None or name not in topologies:
        fitting = [topology for topology, count in topologies.items() if count == devices]
        what = "is missing" if name is None else f"is {name}, which is not known"
        listed = ", ".join(f"{topology} ({count})" for topology, count in topologies.items())
        raise RecipeError(
            f"target.topology {what}; {platform} has (devices in brackets): {listed}",
            hint=f"for the {devices} devices of this recipe choose {' or '.join(fitting)}"
            if fitting
            else None,
        )
    if devices not in (1, topologies[name]):
        raise RecipeError(
            f"target.topology {name} has {topologies[name]} devices, the recipe takes {devices}: "
            f"tensor_parallel {section.tensor_parallel} x context_parallel {section.context_parallel}",
            hint="let the recipe use all devices of the topology, or one (profile single)",
        )
    return name
