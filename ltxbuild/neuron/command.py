"""The command line of neuronx-cc, and the environment it runs in.

Source: the reference of its command line in AWS Neuron's documentation; `--tensorizer-options` is not in it,
but AWS's own ports use it.

Example:
    >>> command({"lnc": 2, "optlevel": 1, "enable-fast-loading-neuron-binaries": True}, "trn2")[-4:]
    ['--enable-fast-loading-neuron-binaries', '--lnc', '2', '-O1']
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltxbuild.errors import RecipeError

GRAPH, NEFF, LOG = "graph.hlo", "graph.neff", "log-neuron-cc.txt"
OWN = ("framework", "logfile", "output", "target", "verbose")
"""Options that are not the recipe's."""


def command(flags: Mapping[str, Any], topology: str) -> list[str]:
    """Arguments after `neuronx-cc`, for a folder with the graph in it.

    Args:
        flags: The recipe's, by name without dashes. True is an option without value, False leaves one away.
        topology: The chip.

    Raises:
        RecipeError: The recipe sets an option that is not its own to set.
    """
    taken = sorted(flags.keys() & set(OWN))
    if taken:
        raise RecipeError(
            f"flags.{taken[0]} can't be set: the build says --{taken[0]} itself",
            hint=f"remove it; the chip is target.topology ({topology})",
        )
    files = ["--output", NEFF, "--logfile", LOG, "--verbose", "35"]
    chosen = [part for name in sorted(flags) for part in _option(name, flags[name])]
    return ["compile", GRAPH, "--framework", "XLA", "--target", topology, *files, *chosen]


def _option(name: str, value: Any) -> list[str]:
    if value is False:
        return []
    if value is True:
        return [f"--{name}"]
    if name == "optlevel":
        return [f"-O{value}"]
    # Values that look like options must be one argument with their name.
    return [f"--{name}={value}"] if str(value).startswith("-") else [f"--{name}", str(value)]


def environment(flags: Mapping[str, Any], topology: str) -> dict[str, str]:
    """Variables of neuronx-cc beside a scrubbed environment; a machine without the chip needs them."""
    return {
        "NEURON_PLATFORM_TARGET_OVERRIDE": topology,
        "NEURON_LOGICAL_NC_CONFIG": str(flags["lnc"]),
    }
