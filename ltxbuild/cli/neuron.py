"""`ltxbuild export` and `import`: graphs to Neuron's compiler elsewhere, and its NEFFs back."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click

from ltx_cache.home import home
from ltx_cache.key import Key
from ltx_cache.store import Store
from ltx_run.console import hint, say
from ltx_run.contents import parsed
from ltxbuild.cli.options import checkpoint_options
from ltxbuild.cli.planning import CheckpointOverrides, Planned, planned, read_recipe
from ltxbuild.errors import BuildFailed, NeffRefused, RecipeError, UnknownProgram
from ltxbuild.neuron.assembly import Graph

RECIPES = (".yaml", ".yml")
folder_option = click.option(
    "--neuron",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder with one folder per program.",
)


@click.command("export")
@click.argument("source", metavar="RECIPE|REF")
@folder_option
@checkpoint_options
def export_command(source: str, folder: Path, overrides: CheckpointOverrides, programs_only: bool) -> None:
    """Write graph.hlo, io.json and argv.json of each program for Neuron, to be compiled elsewhere.

    A recipe's graphs are made if the cache lacks them; a bundle's must be there.

    \b
    Examples:
      ltxbuild export recipes/trn2_halfres.yaml --neuron graphs --programs-only
      ltxbuild export trn2-halfres --neuron graphs
    """
    from ltxbuild.neuron.exchange import export_program

    store = Store(home())
    with store.in_use(create=True):
        if source.endswith(RECIPES):
            found = planned(read_recipe(Path(source), overrides), programs_only=programs_only)
            graphs = list(_of_recipe(found))
        else:
            graphs = list(_of_bundle(source, store))
        calls = [export_program(folder / name, name, key, graph, store) for name, key, graph in graphs]
    say(f"wrote {', '.join(name for name, _, _ in graphs)} to {folder}")
    hint(f"in {folder / graphs[0][0]}, and likewise in the others: {shlex.join(calls[0])}")


@click.command("import")
@click.argument("recipe", type=click.Path(path_type=Path))
@folder_option
@checkpoint_options
def import_command(recipe: Path, folder: Path, overrides: CheckpointOverrides, programs_only: bool) -> None:
    """Take the graph.neff of each program's folder into the cache, as compiled for RECIPE.

    The recipe names the compiler's version in target.compiler, so that what is built with them has its key.

    \b
    Example:
      ltxbuild import recipes/trn2_halfres.yaml --neuron graphs --programs-only
    """
    from ltxbuild.neuron.command import NEFF
    from ltxbuild.neuron.exchange import ARGV, import_program

    read = read_recipe(recipe, overrides)
    if read.target.compiler is None:
        raise RecipeError(
            f"recipe {read.name} doesn't say which neuronx-cc has made the NEFFs",
            hint="set target.compiler to the version that `neuronx-cc --version` says there",
        )
    store = Store(home())
    with store.in_use(create=True):
        taken, left = [], []
        for name, key, graph in _of_recipe(planned(read, programs_only=programs_only)):
            if (folder / name / NEFF).exists():
                import_program(folder / name, name, key, graph, store)
                taken.append(name)
            else:
                left.append(name)
    if not taken:
        wanted = ", ".join(f"{name}/{NEFF}" for name in left)
        raise NeffRefused(f"{folder} has none of {wanted}", hint=f"compile them there, as {ARGV} says")
    say(f"took {', '.join(taken)}" + (f"; not there: {', '.join(left)}" if left else ""))
    hint(f"ltxbuild compile {recipe}")


def _of_recipe(found: Planned) -> Iterator[tuple[str, Key, Graph]]:
    """Name, key and graph of each program for Neuron; what the cache lacks is lowered."""
    from ltxbuild.build import lowered
    from ltxbuild.compiler.workers import WorkerPool
    from ltxbuild.neuron import assembly

    programs = {n: item for n, item in found.plan.programs.items() if item.placement.platform == "neuron"}
    if not programs:
        raise RecipeError(f"recipe {found.plan.recipe.name} has no programs for Neuron")
    with WorkerPool(1, found.store) as pool:
        for name, item in programs.items():
            graph = assembly.lowered(item.key, found.store, partial(lowered, found.plan, item, pool))
            yield name, item.key, graph


def _of_bundle(name: str, store: Store) -> Iterator[tuple[str, Key, Graph]]:
    """The same of a bundle, as far as the cache still has its graphs."""
    from ltxbuild.neuron import assembly

    bundle = parsed(store.open(store.ref(name)).read_bytes())
    keys = {key.digest: key for key in store.entries("program")}
    wanted = {n: item for n, item in bundle.programs.items() if item.fingerprint.platform == "neuron"}
    if not wanted:
        raise UnknownProgram(f"bundle {name} has no programs for Neuron")
    for program, record in wanted.items():
        key = keys.get(record.key)
        graph = assembly.kept_graph(key, store) if key else None
        if key is None or graph is None:
            raise BuildFailed(
                f"the cache no longer has the graph of {program}",
                hint="export the recipe, which makes it again",
            )
        yield program, key, graph
