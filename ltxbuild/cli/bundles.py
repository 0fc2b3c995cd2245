"""`ltxbuild list`, `show` and `recipe-schema`: looking at what there is."""

from __future__ import annotations

import json

import click
import msgspec
from rich.table import Table

from ltx_cache.home import home
from ltx_cache.store import Store
from ltx_run.bundle import Bundle, WeightSet, blobs, decode
from ltx_run.console import data_console, hint, human_bytes
from ltxbuild.cli.options import json_option


@click.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the bundles in the cache: name, digest, platform, variants, size."""
    store = Store(home())
    found = {r.name: (r.manifest, decode(store.open(r.manifest).read_bytes())) for r in store.refs()}
    if as_json:
        rows = {name: {"digest": ref.sha256, "bytes": _size(bundle)} for name, (ref, bundle) in found.items()}
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table()
    for heading in ("bundle", "digest", "platform", "variants"):
        table.add_column(heading)
    table.add_column("size", justify="right")
    for name, (ref, bundle) in found.items():
        platforms = sorted({program.fingerprint.platform for program in bundle.programs.values()})
        table.add_row(
            name,
            ref.sha256[:12],
            ", ".join(platforms),
            ", ".join(bundle.variants),
            human_bytes(_size(bundle)),
        )
    data_console().print(table)
    if not found:
        hint("ltxbuild compile recipes/cpu_tiny.yaml")


def _size(bundle: Bundle) -> int:
    return sum(blob.size for blob in blobs(bundle))


@click.command("show")
@click.argument("ref")
@json_option
def show_command(ref: str, as_json: bool) -> None:
    """Show bundle REF: variants, programs, weight sets and where it came from."""
    store = Store(home())
    blob = store.ref(ref)
    bundle = decode(store.open(blob).read_bytes())
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(bundle, order="sorted"), indent=2).decode())
        return
    console = data_console()
    console.print(f"[bold]{bundle.name}[/]  {blob.sha256}")
    for name, variant in bundle.variants.items():
        size = f"{variant.width}x{variant.height}, {variant.frames} frames at {variant.fps:g} fps"
        console.print(f"  variant {name}: {size}")
    console.print(_programs(bundle))
    console.print(_weights(bundle))
    for name, value in bundle.provenance.items():
        console.print(f"  {name}: {value}", highlight=False)


def _programs(bundle: Bundle) -> Table:
    table = Table(title="programs")
    for heading in ("program", "runs on", "weights"):
        table.add_column(heading)
    for heading in ("executable", "arguments", "temp", "GFLOP"):
        table.add_column(heading, justify="right")
    for name, program in bundle.programs.items():
        table.add_row(
            name,
            f"{program.fingerprint.devices} {program.fingerprint.platform}",
            program.weights or "-",
            human_bytes(program.executable.size),
            human_bytes(program.memory.arguments),
            human_bytes(program.memory.temp),
            f"{program.flops / 1e9:.2f}",
        )
    return table


def _weights(bundle: Bundle) -> Table:
    table = Table(title="weight sets")
    table.add_column("weight set")
    for heading in ("shared", "per rank", "ranks"):
        table.add_column(heading, justify="right")
    for name, weights in bundle.weights.items():
        table.add_row(name, *_weight_row(weights))
    return table


def _weight_row(weights: WeightSet) -> tuple[str, str, str]:
    shared = human_bytes(weights.shared.size) if weights.shared else "-"
    per_rank = human_bytes(weights.ranks[0].size) if weights.ranks else "-"
    return shared, per_rank, str(len(weights.ranks)) if weights.ranks else "-"


@click.command("recipe-schema")
def schema_command() -> None:
    """Print the JSON schema of recipes; editors with a YAML language server check against it."""
    from ltxbuild.recipe_schema import schema

    click.echo(json.dumps(schema(), indent=2))
