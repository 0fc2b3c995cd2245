"""`ltxbuild explain`: why something would be built."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from ltx_run.bundle import Bundle
from ltx_run.console import data_console, hint, say
from ltxbuild.cli.options import checkpoint_options, json_option, recipe_argument
from ltxbuild.cli.planning import CheckpointOverrides, planned, read_recipe
from ltxbuild.plan.explain import Explanation, explain, rows


@click.command("explain")
@recipe_argument
@checkpoint_options
@click.option("--against", metavar="REF", help="Compare with bundle REF instead of the nearest result.")
@json_option
def explain_command(
    recipe: Path,
    overrides: CheckpointOverrides,
    programs_only: bool,
    against: str | None,
    as_json: bool,
) -> None:
    """Explain what a build of RECIPE finds in the cache and what it doesn't. Nothing is built.

    For each miss, the nearest earlier result of the same program is named with the factors that differ.

    \b
    Examples:
      ltxbuild explain recipes/cpu_tiny.yaml
      ltxbuild explain recipes/cpu_tiny.yaml --against cpu-tiny --json
    """
    found = planned(read_recipe(recipe, overrides), programs_only=programs_only)
    bundle: Bundle | None = None
    if against is not None:
        from ltx_run.lookup import find

        bundle = find(against).manifest
    items = explain(found.plan, found.store, bundle)
    if as_json:
        click.echo(json.dumps(_summary(found.plan.recipe.name, against, items), indent=2))
        return
    _show(items, f"{found.plan.recipe.name} against {against or 'the cache'}")
    misses = sum(item.state == "miss" for item in items)
    say(f"{sum(item.state == 'hit' for item in items)} hits, {misses} misses")
    if misses:
        hint(f"ltxbuild compile {recipe}")


def _summary(name: str, against: str | None, items: Sequence[Explanation]) -> dict[str, object]:
    sections = {"program": "programs", "weights": "weights"}
    grouped = {
        section: {item.name: item.json() for item in items if item.kind == kind}
        for kind, section in sections.items()
    }
    return {"recipe": name, "against": against, **grouped}


def _show(items: Sequence[Explanation], title: str) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title)
    for heading in ("item", "state", "factor", "before", "now"):
        table.add_column(heading)
    for row in rows(items):
        table.add_row(*map(Text, row))
    data_console().print(table)
