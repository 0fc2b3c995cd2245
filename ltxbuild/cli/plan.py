"""`ltxbuild plan`: what a build would do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltx_cache.store import Hit, Miss
from ltx_run.console import data_console, hint, human_bytes, say
from ltxbuild.cli.options import checkpoint_options, json_option, recipe_argument
from ltxbuild.cli.planning import CheckpointOverrides, planned, read_recipe
from ltxbuild.errors import CheckpointAbsent
from ltxbuild.plan.memory import Fit, Footprint, Verdict, fits
from ltxbuild.plan.planner import BuildPlan
from ltxbuild.plan.programspec import component_of

if TYPE_CHECKING:
    from rich.table import Table

_VERDICTS: Mapping[Verdict | None, str] = {
    "fits": "[green]fits[/]",
    "fits alone": "[yellow]fits alone[/]",
    "too large": "[red]too large[/]",
    None: "-",
}


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
    """Show the programs and weight sets of RECIPE: hit or miss, and whether they fit. Nothing is built.

    Memory is that of each device: estimated, marked ~, until a program is built, and the compiler's figures
    from then on. `with next` adds weights and code of the program that follows, loaded meanwhile.

    \b
    Examples:
      ltxbuild plan recipes/cpu_tiny.yaml
      ltxbuild plan recipes/v6e8_two_stage.yaml --programs-only --json
    """
    read = read_recipe(recipe, overrides)
    try:
        found = planned(read, programs_only=programs_only)
    except CheckpointAbsent as error:
        say(f"{error.message}: planned without it; `ltxbuild compile` downloads it")
        found = planned(read, programs_only=True)
    show(found.plan, as_json=as_json)


def show(plan: BuildPlan, *, as_json: bool) -> None:
    """Print a plan on standard output."""
    if as_json:
        click.echo(json.dumps(summary(plan), indent=2))
        return
    console, found = data_console(), fits(plan)
    console.print(_programs_table(plan, found))
    console.print(_weights_table(plan))
    _say_whether_it_fits(found)


def summary(plan: BuildPlan) -> dict[str, Any]:
    """A plan as JSON."""
    found = fits(plan)
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
                "memory": _memory(found[name]),
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


def _memory(fit: Fit) -> dict[str, Any]:
    """Bytes on each device, and whether they fit."""
    taken = fit.footprint
    return {
        "source": "estimate" if taken.estimated else "compiler",
        "weights": taken.weights,
        "arguments": taken.arguments,
        "temp": taken.temp,
        "code": None if taken.estimated else taken.code,
        "alone": taken.total,
        "with_next": fit.together,
        "device": fit.capacity,
        "verdict": fit.verdict,
    }


def _programs_table(plan: BuildPlan, found: Mapping[str, Fit]) -> Table:
    from rich.table import Table

    table = Table(title=f"{plan.recipe.name}: programs")
    for heading in ("program", "state"):
        table.add_column(heading)
    for heading in ("devices", "arguments", "temp", "code", "alone", "with next", "of"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for name, fit in found.items():
        item, taken = plan.programs[name], fit.footprint
        sizes = (taken.arguments, taken.temp, taken.total, fit.together)
        arguments, temp, alone, together = (_bytes(size, taken) for size in sizes)
        table.add_row(
            name,
            _state(item.found),
            str(item.placement.devices),
            arguments,
            temp,
            "-" if taken.estimated else human_bytes(taken.code),
            alone,
            together,
            human_bytes(fit.capacity) if fit.capacity else "-",
            _VERDICTS[fit.verdict],
        )
    return table


def _bytes(size: int, taken: Footprint) -> str:
    return f"~{human_bytes(size)}" if taken.estimated else human_bytes(size)


def _weights_table(plan: BuildPlan) -> Table:
    from rich.table import Table

    table = Table(title="weight sets")
    table.add_column("weight set")
    table.add_column("state")
    for heading in ("files", "LoRAs", "bytes/device"):
        table.add_column(heading, justify="right")
    for name, item in plan.weights.items():
        split = item.placement.weight_rules(plan.tables[component_of(name)])
        files = str(item.placement.devices) if split else "1"
        loras = str(len(item.loras)) if item.loras else "-"
        table.add_row(name, _state(item.found), files, loras, human_bytes(item.bytes_per_device))
    return table


def _state(found: Hit | Miss | None) -> str:
    if found is None:
        return "no checkpoint"
    return "hit" if isinstance(found, Hit) else "miss"


def _say_whether_it_fits(found: Mapping[str, Fit]) -> None:
    """One sentence on all programs, on standard error."""
    if any(fit.footprint.estimated for fit in found.values()):
        say("~ is an estimate; the compiler's figures, if it has any, take its place once a program is built")
    verdicts = {name: fit.verdict for name, fit in found.items() if fit.verdict}
    if large := [name for name, verdict in verdicts.items() if verdict == "too large"]:
        say(f"too large for the memory of its devices: {', '.join(large)}")
        hint("split it over more devices (target.profile, target.tensor_parallel), or make the video smaller")
    elif tight := [name for name, verdict in verdicts.items() if verdict == "fits alone"]:
        say(f"every program fits; not beside the weights of the one that follows: {', '.join(tight)}")
    elif verdicts:
        say("every program fits its devices, also beside the weights of the one that follows")
