"""`ltxbuild`: the command group. Commands are imported when they run, so `--help` stays quick."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from ltx_run.console import guarded
from ltxbuild import __version__
from ltxbuild.errors import ToolMissing

EXTRA = frozenset({"jax", "pydantic", "pydantic_core", "yaml"})
"""Modules of the extra `build`, which installations that only run bundles don't have."""
COMMANDS = {
    "compile": (
        "ltxbuild.cli.compile",
        "compile_command",
        "Build a recipe's bundle: shard weights, compile programs.",
    ),
    "plan": (
        "ltxbuild.cli.plan",
        "plan_command",
        "Show what a build would do: hits, misses and bytes per device.",
    ),
    "explain": (
        "ltxbuild.cli.explain",
        "explain_command",
        "Say why something would be built: the factors that differ from earlier results.",
    ),
    "doctor": (
        "ltxbuild.cli.doctor",
        "doctor_command",
        "Show what this machine can build and run, and what it lacks.",
    ),
    "list": ("ltxbuild.cli.bundles", "list_command", "List the bundles in the cache."),
    "show": (
        "ltxbuild.cli.bundles",
        "show_command",
        "Show one bundle: variants, programs, weights, provenance.",
    ),
    "inspect": (
        "ltxbuild.cli.inspect",
        "inspect_command",
        "Show what one program exchanges, computes and keeps in memory.",
    ),
    "verify": ("ltxbuild.cli.verify", "verify_command", "Hash the cache again and name what is broken."),
    "du": ("ltxbuild.cli.cache", "du_command", "Show what bundles take, shared bytes once."),
    "rm": ("ltxbuild.cli.cache", "rm_command", "Forget a bundle."),
    "gc": ("ltxbuild.cli.cache", "gc_command", "Remove what no bundle needs."),
    "bundle": ("ltxbuild.cli.exchange", "bundle_command", "Write a bundle to one file or a directory."),
    "unbundle": ("ltxbuild.cli.exchange", "unbundle_command", "Read a bundle from a file into the cache."),
    "push": ("ltxbuild.cli.remotes", "push_command", "Send a bundle to a remote."),
    "pull": ("ltxbuild.cli.remotes", "pull_command", "Receive a bundle from a remote."),
    "keygen": ("ltxbuild.cli.keygen", "keygen_command", "Make a key to sign bundles with."),
    "export": ("ltxbuild.cli.neuron", "export_command", "Write graphs for Neuron's compiler elsewhere."),
    "import": ("ltxbuild.cli.neuron", "import_command", "Take back the NEFFs that it made of them."),
    "make-tiny-checkpoint": (
        "ltxbuild.cli.tiny",
        "tiny_command",
        "Write a tiny random checkpoint in the official layout.",
    ),
    "recipe-schema": (
        "ltxbuild.cli.bundles",
        "schema_command",
        "Print the JSON schema of recipes, for editors.",
    ),
}


class _LazyGroup(click.Group):
    """A group whose commands are imported on first use; their one-line helps are known without."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if error.name not in EXTRA:
                raise
            raise ToolMissing(
                f"this command needs {error.name}, which is not installed",
                hint="pip install 'ltxbuild[build]'",
            ) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ltxbuild")
def cli() -> None:
    """Build runnable LTX-2.3 bundles from recipes and checkpoints.

    \b
    Examples:
      ltxbuild make-tiny-checkpoint demo/checkpoint
      ltxbuild compile recipes/cpu_tiny.yaml
      ltx-run cpu-tiny --prompt "a red ball rolls to the left" -o out.mp4

    The cache is at $LTX_HOME (default: ltxbuild in the user's cache folder).
    """


def main() -> None:
    """Entry point: errors become a message, a hint and an exit code."""
    guarded(cli)
