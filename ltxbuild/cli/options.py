"""Arguments and options that several commands share, each bound to one name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
checkpoint_option = click.option(
    "--checkpoint", metavar="FILE", help="LTX-2.3 single file, in place of the recipe's (path or hf://)."
)
text_encoder_option = click.option(
    "--text-encoder", metavar="DIR", help="Gemma-3 directory, in place of the recipe's (path or hf://)."
)
upsampler_option = click.option(
    "--upsampler", metavar="FILE", help="Latent upsampler, in place of the recipe's (path or hf://)."
)
programs_only_option = click.option(
    "--programs-only",
    is_flag=True,
    help="Programs without weights; needs no checkpoint and publishes no bundle.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


def checkpoint_options(command: Command) -> Command:
    """The options that say where weights come from."""
    for option in (programs_only_option, upsampler_option, text_encoder_option, checkpoint_option):
        command = option(command)
    return command
