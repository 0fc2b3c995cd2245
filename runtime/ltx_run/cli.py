"""`ltx-run`: the command. Only click is imported before it is clear that something will run."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ltx_cache.errors import LtxError
from ltx_run import __version__
from ltx_run.console import INTERRUPTED, guarded, say
from ltx_run.run_options import run_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from click.shell_completion import CompletionItem

    from ltx_run.launch import Options


DEFAULT_SEED = 10


def _bundle_names(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Names in the cache, for the shell."""
    from click.shell_completion import CompletionItem

    from ltx_cache.home import home
    from ltx_cache.store import Store

    return [CompletionItem(ref.name) for ref in Store(home()).refs() if ref.name.startswith(typed)]


def _inspect(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Print how a file was made, and leave."""
    if path is None or context.resilient_parsing:
        return
    from ltx_run.provenance import read

    click.echo(json.dumps(read(path), indent=2))
    context.exit()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundle", shell_complete=_bundle_names)
@click.option("-p", "--prompt", metavar="TEXT", help="What the video shows and sounds like.")
@click.option(
    "--negative-prompt",
    metavar="TEXT",
    help="What it shall not be like (guided pipelines); may be empty.  [default: the recipe's]",
)
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help="An .mp4, .webm, .gif or .wav file, or DIRECTORY/ for a PNG file per frame; what exists is replaced "
    "when the new one is complete.",
)
@click.option("--no-audio", is_flag=True, help="Write no sound, and don't make it.")
@click.option(
    "--contact-sheet",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a .png file with frames of the whole video.",
)
@click.option(
    "--prompts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="JSON lines with prompt, seed and output: all are made, with each program loaded once. "
    "-o is then a directory.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="PATH[:FRAME[:STRENGTH[:CRF]]]",
    help="Image that the video starts from, or has at a later frame (repeatable).  "
    "[default: frame 0, strength 1, CRF 33]",
)
@click.option(
    "--guidance",
    multiple=True,
    metavar="NAME=VALUE",
    help="Scale of guided pipelines (repeatable): video.cfg, video.stg, video.modality, video.rescale, and "
    "the same of audio.  [default: the recipe's]",
)
@click.option(
    "--variant",
    metavar="NAME",
    help="Size and length, from the recipe.  [default: the only one, or 'default']",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**64 - 1),
    default=DEFAULT_SEED,
    show_default=True,
    metavar="N",
    help="Seed of the noise: the same numbers on every platform.",
)
@click.option(
    "--tensors-in",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Safetensors file of plan tensors to take instead of computing them.",
)
@click.option(
    "--tensors-out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Save contexts, latents, frames and waveform to this safetensors file.",
)
@run_options
@click.option(
    "-v", "--verbose", is_flag=True, help="Print the compiler's figures, and tracebacks of internal errors."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output.")
@click.option(
    "--inspect",
    type=click.Path(exists=True, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_inspect,
    metavar="FILE",
    help="Print as JSON how a file was made (prompt, seed, bundle), and do nothing else.",
)
@click.version_option(__version__, prog_name="ltx-run")
def cli(
    bundle: str,
    prompt: str | None,
    output: str | None,
    no_audio: bool,
    contact_sheet: Path | None,
    prompts: Path | None,
    images: tuple[str, ...],
    negative_prompt: str | None,
    guidance: tuple[str, ...],
    variant: str | None,
    seed: int,
    tensors_in: Path | None,
    tensors_out: Path | None,
    options: Options,
    verbose: bool,
    as_json: bool,
) -> None:
    """Generate a video with sound from BUNDLE: a name in the cache, a directory, or an address.

    From hf://ORG/REPO[@REVISION][#NAME] and file:///FOLDER[#NAME] the variant that is asked for is received
    first, if the cache lacks it. `ltxbuild list` shows names. Everything that can be
    checked is checked before the first program is loaded.

    \b
    Examples:
      ltx-run cpu-tiny --prompt "a red ball rolls to the left" -o ball.mp4
      ltx-run hf://org/repo --trust release.key.pub --prompt "rain" -o rain.mp4
      ltx-run cpu-tiny --prompt "rain on a tin roof" -o rain.mp4 --variant wide --seed 7
      ltx-run cpu-tiny --prompt "rain" -o rain.mp4 --tensors-out rain.safetensors --json
      ltx-run cpu-tiny --prompt "a cat yawns" -o cat.mp4 --image cat.png --image asleep.png:16:0.8
      ltx-run cpu-tiny-guided --prompt "rain" -o rain.mp4 --negative-prompt "snow" --guidance video.cfg=4
      ltx-run cpu-tiny --prompts prompts.jsonl -o videos/
      ltx-run --inspect ball.mp4
      ltx-run my-16-chips --prompt "rain" -o rain.mp4 --coordinator host0:8476 --process 0 --processes 4

    Exit codes: 0 done, 1 failed, 2 wrong input, 3 a needed device or tool is missing, 130 interrupted.
    """
    from ltx_run import guidance as scales
    from ltx_run import launch
    from ltx_run.conditioning import parse
    from ltx_run.offline import refuse_connections
    from ltx_run.request import Request

    of_one = {"--prompt": prompt, "--tensors-out": tensors_out, "--contact-sheet": contact_sheet}
    _check_usage(prompts, output, of_one)
    if options.offline:
        refuse_connections()
    given = tuple(map(parse, images))
    request = Request(
        prompt,
        Path(output or ""),
        seed,
        variant,
        tensors_in,
        tensors_out,
        directory=(output or "").endswith("/"),
        audio=not no_audio,
        contact_sheet=contact_sheet,
        images=given,
        negative_prompt=negative_prompt,
        scales=scales.parse(guidance),
    )
    earlier = _file(request.output)
    try:
        requests = launch.read(prompts, output, request) if prompts else [request]
        report = launch.run(bundle, requests, options)
        launch.tell(report, quiet=options.quiet, verbose=verbose, as_json=as_json)
    except KeyboardInterrupt:
        if prompts:
            left = "what was not complete was not written"
        elif _file(request.output) in (None, earlier):
            left = f"{output} was not written"
        else:
            left = f"{output} is complete, what was to come after it is not"
        say(f"interrupted: {left}")
        sys.stderr.flush()
        # A program may still be executing, and leaving in order would wait for its end.
        os._exit(INTERRUPTED)
    except LtxError:
        raise
    except Exception:
        if verbose:
            traceback.print_exc()
        raise


def _file(path: Path) -> tuple[int, int] | None:
    """What tells a file from one that takes its place; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _check_usage(prompts: Path | None, output: str | None, of_one: Mapping[str, object]) -> None:
    """Options that need or exclude each other."""
    excluded = [name for name, value in of_one.items() if value is not None]
    if prompts and excluded:
        raise click.UsageError(f"{' and '.join(excluded)} can't be used with --prompts")
    if output == "":
        raise click.UsageError("-o names no file: it is empty. The current directory is -o ./")
    if not prompts and output is None:
        raise click.UsageError("Missing option '-o' / '--output'.")


def main() -> None:
    """Entry point: errors become a message, a hint and an exit code."""
    guarded(cli)
