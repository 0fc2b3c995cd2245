"""`ltxbuild doctor`: what this machine can build and run."""

from __future__ import annotations

import json

import click

from ltxbuild.cli.options import json_option
from ltxbuild.diagnosis import Check, diagnose
from ltxbuild.probe import look


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> None:
    """Show for every target what is installed, which devices are there, what is missing, and how to get it.

    Nothing is started or imported: files and package metadata are looked at. Building needs no device; the
    exit code is 0 whatever is missing.

    \b
    Examples:
      ltxbuild doctor
      ltxbuild doctor --json
    """
    checks = diagnose(look())
    if as_json:
        click.echo(json.dumps([check.json() for check in checks], indent=2))
    else:
        _show(checks)


def _show(checks: tuple[Check, ...]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ltx_run.console import data_console

    table = Table()
    for heading in ("for", "to", "", "there", "missing", "next step"):
        table.add_column(heading)
    for check in checks:
        first = check.missing[0].fix if check.missing else ""
        table.add_row(
            check.area,
            check.use,
            "[green]ok[/]" if check.ok else "[yellow]no[/]",
            escape("\n".join(f"{part.name} {part.found}" for part in check.parts if part.found)),
            escape("\n".join(part.name for part in check.missing)),
            escape(first),
        )
    data_console().print(table)
