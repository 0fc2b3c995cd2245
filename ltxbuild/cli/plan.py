"""`ltxbuild plan`: what a build would do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltx_cache.store import Hit, Miss
from ltx_run.console import data_console, human_bytes
from ltxbuild.cli.options import checkpoint_options, json_option, recipe_argument
from ltxbuild.cli.planning import CheckpointOverrides, planned, read_recipe
from ltxbuild.plan.planner import BuildPlan, PlannedProgram
from ltxbuild.plan.programspec import Size

if TYPE_CHECKING:
    from rich.table import Table


@click.command("plan")
@recipe_argument
@checkpoint_options
@json_option
def plan_command(
    recipe: Path,
    overrides: CheckpointOverrides,
    programs_only: bool,
    as_json: bool,
) -> None:
    """Show the programs and weight sets of RECIPE: hit or miss, and bytes per device. Nothing is built.

    \b
    Examples:
      ltxbuild plan recipes/cpu_tiny.yaml
      ltxbuild plan recipes/v6e8_two_stage.yaml --programs-only --json
    """
    show(planned(read_recipe(recipe, overrides), programs_only=programs_only).plan, as_json=as_json)


def show(plan: BuildPlan, *, as_json: bool) -> None:
    """Print a plan on standard output."""
    if as_json:
        click.echo(json.dumps(summary(plan), indent=2))
        return
    console = data_console()
    console.print(_programs_table(plan))
    console.print(_weights_table(plan))


def summary(plan: BuildPlan) -> dict[str, Any]:
    """A plan as JSON."""
    return {
        "recipe": plan.recipe.name,
        "complete": plan.complete,
        "programs": {
            name: {
                "kind": item.spec.kind,
                "geometry": dict(item.spec.geometry),
                "devices": item.placement.devices,
                "attention": item.forms.attention,
                "state": _state(item.found),
                "key": item.key.digest,
                "weight_bytes_per_device": _weight_bytes(plan, item.spec.weights),
                "temp_bytes_per_device": _temp_bytes(item),
            }
            for name, item in plan.programs.items()
        },
        "weights": {
            name: {
                "state": _state(item.found),
                "key": item.key.digest if item.key else None,
                "bytes_per_device": item.bytes_per_device,
                "loras": len(item.loras),
            }
            for name, item in plan.weights.items()
        },
    }


def _programs_table(plan: BuildPlan) -> Table:
    from rich.table import Table

    table = Table(title=f"{plan.recipe.name}: programs")
    for heading in ("program", "geometry", "state"):
        table.add_column(heading)
    for heading in ("devices", "weights/device", "temp/device"):
        table.add_column(heading, justify="right")
    for name, item in plan.programs.items():
        geometry = " ".join(f"{key}={_shown(value)}" for key, value in item.spec.geometry)
        temp = _temp_bytes(item)
        table.add_row(
            name,
            geometry,
            _state(item.found),
            str(item.placement.devices),
            human_bytes(_weight_bytes(plan, item.spec.weights)),
            "-" if temp is None else human_bytes(temp),
        )
    return table


def _shown(value: Size) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"


def _weights_table(plan: BuildPlan) -> Table:
    from rich.table import Table

    table = Table(title="weight sets")
    table.add_column("weight set")
    table.add_column("state")
    for heading in ("files", "LoRAs", "bytes/device"):
        table.add_column(heading, justify="right")
    for name, item in plan.weights.items():
        files = str(item.placement.devices) if item.placement.mesh else "1"
        loras = str(len(item.loras)) if item.loras else "-"
        table.add_row(name, _state(item.found), files, loras, human_bytes(item.bytes_per_device))
    return table


def _state(found: Hit | Miss | None) -> str:
    if found is None:
        return "no checkpoint"
    return "hit" if isinstance(found, Hit) else "miss"


def _weight_bytes(plan: BuildPlan, name: str | None) -> int:
    return plan.weights[name].bytes_per_device if name else 0


def _temp_bytes(item: PlannedProgram) -> int | None:
    """Scratch memory, known from the compiler once the program is built."""
    return item.record.memory.temp if item.record else None
