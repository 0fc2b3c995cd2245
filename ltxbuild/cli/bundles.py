"""`ltxbuild list`, `show` and `recipe-schema`: looking at what there is."""

from __future__ import annotations

import json
from typing import Any

import click
import msgspec
from rich.table import Table
from rich.text import Text

from ltx_cache.blobref import BlobRef
from ltx_cache.home import home
from ltx_cache.store import Store
from ltx_run.bundle import Bundle, WeightSet, blobs
from ltx_run.console import data_console, hint, human_bytes
from ltx_run.contents import parsed, platforms
from ltx_run.errors import BundleInvalid
from ltxbuild.cli.options import json_option


@click.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the bundles in the cache: name, digest, platform, variants, size."""
    store = Store(home())
    found = {ref.name: (ref.manifest, _parsed(store, ref.manifest)) for ref in store.refs()}
    if as_json:
        click.echo(json.dumps({name: _json(ref, read) for name, (ref, read) in found.items()}, indent=2))
        return
    table = Table()
    for heading in ("bundle", "digest", "platform", "variants"):
        table.add_column(heading)
    table.add_column("size", justify="right")
    for name, (ref, read) in found.items():
        table.add_row(*map(Text, (name, ref.sha256[:12], *_row(read))))
    data_console().print(table)
    if not found:
        hint("ltxbuild compile recipes/cpu_tiny.yaml")
    for advice in {read.hint for _, read in found.values() if isinstance(read, BundleInvalid) and read.hint}:
        hint(advice)


def _parsed(store: Store, manifest: BlobRef) -> Bundle | BundleInvalid:
    """A bundle, or why it can't be shown: one of another version hides no others."""
    data = store.open(manifest).read_bytes()
    try:
        return parsed(data)
    except BundleInvalid as error:
        return error


def _json(manifest: BlobRef, read: Bundle | BundleInvalid) -> dict[str, Any]:
    if isinstance(read, BundleInvalid):
        return {"digest": manifest.sha256, "bytes": None, "problem": read.message}
    return {"digest": manifest.sha256, "bytes": _size(read)}


def _row(read: Bundle | BundleInvalid) -> tuple[str, str, str]:
    """Platforms, variants and size."""
    if isinstance(read, BundleInvalid):
        return "?", "made by another version", "?"
    return ", ".join(platforms(read)), ", ".join(read.variants), human_bytes(_size(read))


def _size(bundle: Bundle) -> int:
    return sum(blob.size for blob in blobs(bundle))


@click.command("show")
@click.argument("ref")
@json_option
def show_command(ref: str, as_json: bool) -> None:
    """Show bundle REF: variants, programs, weight sets and where it came from."""
    store = Store(home())
    blob = store.ref(ref)
    bundle = parsed(store.open(blob).read_bytes())
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(bundle, order="sorted"), indent=2).decode())
        return
    console = data_console()
    console.print(Text.assemble((bundle.name, "bold"), f"  {blob.sha256}"))
    for name, variant in bundle.variants.items():
        size = f"{variant.width}x{variant.height}, {variant.frames} frames at {variant.fps:g} fps"
        console.print(Text(f"  variant {name}: {size}"))
    console.print(_programs(bundle))
    console.print(_weights(bundle))
    for name, value in bundle.provenance.items():
        console.print(Text(f"  {name}: {value}"))


def _programs(bundle: Bundle) -> Table:
    table = Table(title="programs")
    for heading in ("program", "runs on", "weights"):
        table.add_column(heading)
    for heading in ("executable", "arguments", "temp", "GFLOP"):
        table.add_column(heading, justify="right")
    for name, program in bundle.programs.items():
        table.add_row(
            Text(name),
            Text(f"{program.fingerprint.devices} {program.fingerprint.platform}"),
            Text(program.weights or "-"),
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
        table.add_row(Text(name), *_weight_row(weights))
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
