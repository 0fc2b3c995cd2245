"""Arguments and options that several commands share, each bound to one name."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:  # recipes need pydantic, and most commands no recipe
    from ltxbuild.recipe import LoraSection

Command = TypeVar("Command", bound=Callable[..., Any])


def _lora(text: str) -> LoraSection:
    """`FILE` or `FILE:STRENGTH`; the colon of `hf://` is no separator."""
    from ltxbuild.recipe import LoraSection

    file, _, tail = text.rpartition(":")
    if not file or tail.startswith("//"):
        return LoraSection(file=text)
    try:
        strength = float(tail)
    except ValueError:
        strength = math.nan
    if not math.isfinite(strength):
        raise click.BadParameter(f"{text}: {tail!r} after the colon is not a strength")
    return LoraSection(file=file, strength=strength)


def _loras(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """The LoRAs of an option that is given once or many times; None if it isn't."""
    if isinstance(value, tuple):
        return tuple(_lora(text) for text in value) or None
    return None if value is None else _lora(value)


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
lora_option = click.option(
    "--lora",
    "loras",
    callback=_loras,
    multiple=True,
    metavar="FILE[:STRENGTH]",
    help="LoRA to merge into the weights, in place of the recipe's (path or hf://; repeatable).",
)
distilled_lora_option = click.option(
    "--distilled-lora",
    callback=_loras,
    metavar="FILE[:STRENGTH]",
    help="LoRA that makes the second stage's weights of guided pipelines, in place of the recipe's.",
)
distilled_option = click.option(
    "--distilled",
    metavar="FILE",
    help="Distilled single file for that stage, in place of a LoRA (path or hf://).",
)
programs_only_option = click.option(
    "--programs-only",
    is_flag=True,
    help="Programs without weights; needs no checkpoint and publishes no bundle.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")

yes_option = click.option("-y", "--yes", is_flag=True, help="Don't ask.")


def checkpoint_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say where weights come from, given to the command as `overrides`."""

    @functools.wraps(command)
    def gathered(
        checkpoint: str | None,
        text_encoder: str | None,
        upsampler: str | None,
        loras: tuple[LoraSection, ...] | None,
        distilled_lora: LoraSection | None,
        distilled: str | None,
        **others: Any,
    ) -> None:
        from ltxbuild.cli.planning import CheckpointOverrides

        given = (checkpoint, text_encoder, upsampler, loras, distilled_lora, distilled)
        command(overrides=CheckpointOverrides(*given), **others)

    for option in (
        programs_only_option,
        distilled_option,
        distilled_lora_option,
        lora_option,
        upsampler_option,
        text_encoder_option,
        checkpoint_option,
    ):
        gathered = option(gathered)
    return gathered
