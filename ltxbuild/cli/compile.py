"""`ltxbuild compile`: build a bundle."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click

from ltx_cache.home import home
from ltx_cache.store import Store
from ltx_cache.trust import Trust
from ltx_run.console import hint, human_bytes, say
from ltxbuild.cli.options import checkpoint_options, json_option, recipe_argument
from ltxbuild.cli.plan import show, summary
from ltxbuild.cli.planning import CheckpointOverrides, Planned, planned, read_recipe
from ltxbuild.cli.trusting import offline_option, trust_options
from ltxbuild.errors import ToolMissing, UnknownProgram
from ltxbuild.plan.planner import BuildPlan


@click.command("compile")
@recipe_argument
@checkpoint_options
@click.option("--only", multiple=True, metavar="PROGRAM", help="Build only this program (repeatable).")
@click.option("--from", "source", metavar="URL", help="Take from this remote what it has.")
@trust_options
@offline_option
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, 64),
    default=min(2, os.cpu_count() or 1),
    show_default=True,
    help="Compile processes.",
)
@json_option
def compile_command(
    recipe: Path,
    overrides: CheckpointOverrides,
    programs_only: bool,
    only: tuple[str, ...],
    source: str | None,
    trust: Trust,
    offline: bool,
    dry_run: bool,
    jobs: int,
    as_json: bool,
) -> None:
    """Build RECIPE: shard the weights, compile the programs, publish the bundle under the recipe's name.

    What the cache has already is taken from there; an interrupted build goes on where it stopped.

    \b
    Examples:
      ltxbuild compile recipes/cpu_tiny.yaml
      ltxbuild compile recipes/cpu_tiny.yaml --only video_decoder
      ltxbuild compile recipes/cpu_tiny.yaml --from hf://org/repo --trust release.key.pub
      ltxbuild compile recipes/cpu_tiny.yaml --checkpoint model.safetensors --text-encoder gemma/
    """
    if source is not None and dry_run:
        raise click.UsageError("--from would fill the cache: it can't be used with --dry-run")
    if offline:
        _refuse_network(source)
    started = time.monotonic()
    read, download = read_recipe(recipe, overrides), not (dry_run or offline)
    with Store(home()).in_use(create=True, on_wait=lambda: say("waiting for the end of ltxbuild gc")):
        found = planned(read, programs_only=programs_only, download=download)
        chosen = _chosen(found.plan, only)
        if source is not None and _take(found, source, trust, chosen):
            found = planned(read, programs_only=programs_only, download=download)
        if dry_run:
            show(found.plan, as_json=as_json)
            return
        try:
            bundle = _build(found, chosen, jobs)
        except ToolMissing as missing:
            elsewhere = (
                f"where it is installed, on this cache or a copy: LTX_HOME={home()} ltxbuild compile {recipe}"
            )
            raise ToolMissing(missing.message, hint=missing.hint or elsewhere) from None
    report = {**summary(found.plan), "bundle": bundle, "seconds": round(time.monotonic() - started, 3)}
    if as_json:
        click.echo(json.dumps(report, indent=2))
    _closing_words(found, chosen, bundle, report["seconds"])


def _refuse_network(source: str | None) -> None:
    from ltx_cache.address import HUB
    from ltx_run.offline import refuse_connections

    if source is not None and source.startswith(HUB):
        raise click.UsageError(f"--from {source} needs the network: it can't be used with --offline")
    refuse_connections()


def _take(found: Planned, url: str, trust: Trust, only: set[str]) -> bool:
    """Take what a remote has of a plan, or of the programs in `only`; whether there was anything."""
    from ltx_cache.address import address
    from ltxbuild.bundles.readthrough import read_through
    from ltxbuild.plan.explain import shortened

    taken = read_through(found.plan, found.store, address(url), trust, only)
    for item in taken.misses:
        changes = (f"{name} {shortened(old)} -> {shortened(new)}" for name, old, new in item.differences)
        say(f"  {item.name} is not at {url}: {', '.join(changes) or item.reason}")
    for note in taken.notes:
        say(f"  {note}")
    say(f"{len(taken.hits)} results taken from {url} ({human_bytes(taken.size)})")
    return bool(taken.hits)


def _chosen(plan: BuildPlan, only: tuple[str, ...]) -> set[str]:
    """Programs named by id or by kind."""
    chosen: set[str] = set()
    for wanted in only:
        matches = {name for name, item in plan.programs.items() if wanted in (name, item.spec.kind)}
        if not matches:
            raise UnknownProgram(f"--only {wanted}: no such program (there are: {', '.join(plan.programs)})")
        chosen |= matches
    return chosen


def _build(found: Planned, chosen: set[str], jobs: int) -> str | None:
    """Build what is missing and publish; returns the bundle's digest, None when it isn't whole."""
    plan = found.plan
    if plan.complete and not chosen:
        programs = {name: item.record for name, item in plan.programs.items() if item.record}
        weights = {name: item.record for name, item in plan.weights.items() if item.record}
    else:
        from ltxbuild.build import build
        from ltxbuild.cli.progress import BuildProgress

        with BuildProgress() as progress:
            built = build(plan, found.checkpoint, found.store, progress, jobs=jobs, only=chosen)
        programs, weights = built.programs, built.weights
    if found.checkpoint is None or len(programs) < len(plan.programs) or len(weights) < len(plan.weights):
        return None
    from ltxbuild.bundles.bundler import publish

    tokenizer = found.store.put_file(found.checkpoint.tokenizer)
    return publish(plan, programs, weights, tokenizer, found.files, found.store).sha256


def _closing_words(found: Planned, chosen: set[str], bundle: str | None, seconds: object) -> None:
    plan, state = found.plan, "up to date" if found.plan.complete else "built"
    if bundle:
        say(f"{plan.recipe.name} {state} in {seconds} s: {bundle[:12]}")
        hint(f'ltx-run {plan.recipe.name} --prompt "..." -o out.mp4')
    elif chosen:
        say(f"{', '.join(sorted(chosen))} built in {seconds} s; the bundle is not published with --only")
    else:
        say(f"{plan.recipe.name}: programs {state} in {seconds} s; without weights no bundle is published")
        hint("pass --checkpoint FILE --text-encoder DIR to add the weights")
