"""`ltxbuild inspect`: what one compiled program exchanges, computes and keeps in memory."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltx_run.bundle import Collective, Program, WeightInput
from ltx_run.console import data_console, hint, human_bytes
from ltxbuild.cli.options import json_option
from ltxbuild.errors import UnknownProgram

if TYPE_CHECKING:
    from rich.table import Table


@click.command("inspect")
@click.argument("ref")
@click.argument("program")
@json_option
def inspect_command(ref: str, program: str, as_json: bool) -> None:
    """Show what PROGRAM of bundle REF exchanges between devices, computes and keeps in memory.

    REF may also be a recipe (a .yaml file) whose programs were compiled without weights. PROGRAM is a name,
    or a kind that only one program has. Exchanges are counted in one iteration of the loops that they are
    in; what a device sends is that of a ring.

    \b
    Examples:
      ltxbuild inspect cpu-tiny-tp4 denoise
      ltxbuild inspect recipes/v6e8_two_stage.yaml denoise_from --json
    """
    name, record = _chosen(ref, _programs(ref), program)
    if as_json:
        click.echo(json.dumps(summary(name, record), indent=2))
        return
    from rich.text import Text

    console = data_console()
    memory, target = record.memory, record.fingerprint
    mesh = " x ".join(f"{axis} {size}" for axis, size in record.mesh) or "no mesh"
    console.print(Text.assemble((name, "bold"), f"  {target.devices} {target.platform} ({mesh})"))
    console.print(
        f"  on each device: arguments {human_bytes(memory.arguments)}, temp {human_bytes(memory.temp)}, "
        f"code {human_bytes(memory.code)}, {record.flops / 1e9:.2f} GFLOP",
        highlight=False,
    )
    if record.census is None:
        hint("this program was compiled where the compiler doesn't tell what it exchanges and keeps")
        return
    console.print(_collectives(record))
    console.print(_temporaries(record))


def _programs(ref: str) -> dict[str, Program]:
    """The programs of a bundle, or those of a recipe that are built."""
    if Path(ref).suffix not in (".yaml", ".yml"):
        from ltx_run.lookup import find

        return find(ref).manifest.programs
    from ltxbuild.cli.planning import planned
    from ltxbuild.recipe import load

    plan = planned(load(Path(ref)), programs_only=True).plan
    return {name: item.record for name, item in plan.programs.items() if item.record}


def _chosen(ref: str, programs: dict[str, Program], wanted: str) -> tuple[str, Program]:
    matches = [name for name in programs if wanted in (name, name.partition(".")[0])]
    if len(matches) != 1:
        there = f"there are: {', '.join(matches or programs)}" if programs else "none is compiled"
        raise UnknownProgram(
            f"{ref} has {len(matches) or 'no'} program{'s' * (len(matches) > 1)} {wanted} ({there})",
            hint=None if programs else f"ltxbuild compile {ref} --programs-only",
        )
    return matches[0], programs[matches[0]]


def summary(name: str, record: Program) -> dict[str, Any]:
    """A program as JSON."""
    import msgspec

    census = record.census
    return {
        "program": name,
        "platform": record.fingerprint.platform,
        "devices": record.fingerprint.devices,
        "mesh": dict(record.mesh),
        "layers": layers(record),
        "flops": record.flops,
        "memory": msgspec.to_builtins(record.memory),
        "collectives": census and [_row(each, layers(record)) for each in census.collectives],
        "sent": census and sum(sent(each) * prod(each.loops) for each in census.collectives),
        "temporaries": census and msgspec.to_builtins(census.temporaries),
    }


def _row(each: Collective, layers: int) -> dict[str, Any]:
    import msgspec

    return {**msgspec.to_builtins(each), "in_block": in_block(each, layers), "sent": sent(each)}


def layers(record: Program) -> int:
    """Layers of a program's largest stack of weights, scanned or written out; 0 without any."""
    stacks = [i for i in record.inputs if isinstance(i, WeightInput) and ".blocks." in f".{i.name}"]
    return max((i.shape[0] if i.layer is None else i.layer + 1 for i in stacks), default=0)


def in_block(each: Collective, layers: int) -> bool:
    """Whether exchanges are those of one layer: inside a loop over all layers."""
    return bool(layers > 1 and each.loops and each.loops[-1] == layers)


def sent(each: Collective) -> int:
    """Bytes that each device sends for these exchanges in one iteration, if devices form a ring.

    A sum passes every part round twice, a gather or a scatter once.
    """
    if each.kind == "collective-permute":
        return each.bytes
    rounds = 2 if each.kind == "all-reduce" else 1
    return rounds * each.bytes * (each.group - 1) // each.group


def _collectives(record: Program) -> Table:
    from rich.table import Table
    from rich.text import Text

    census, depth = record.census, layers(record)
    assert census is not None
    table = Table(title="exchanges between devices")
    table.add_column("where")
    table.add_column("kind")
    for heading in ("devices", "count", "bytes", "sent by each", "sent in all"):
        table.add_column(heading, justify="right")
    for each in census.collectives:
        runs = prod(each.loops)
        where = "block" if in_block(each, depth) else "loop" if each.loops else "once"
        times = " x ".join(map(str, each.loops))
        table.add_row(
            f"{where}, {times} times" if times else where,
            Text(each.kind),
            str(each.group),
            str(each.count),
            human_bytes(each.bytes),
            human_bytes(sent(each)),
            human_bytes(sent(each) * runs),
        )
    return table


def _temporaries(record: Program) -> Table:
    from rich.table import Table
    from rich.text import Text

    assert record.census is not None
    table = Table(title="largest results of single operations (they share memory over time)")
    table.add_column("bytes", justify="right")
    for heading in ("shape", "operation", "from"):
        table.add_column(heading)
    for each in record.census.temporaries:
        table.add_row(*map(Text, (human_bytes(each.bytes), each.shape, each.opcode, each.origin)))
    return table
