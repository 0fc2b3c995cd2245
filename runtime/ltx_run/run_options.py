"""Options of the command that say how it runs, whatever it makes: read into one `launch.Options`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ltx_cache.trust import Trust
    from ltx_run.cluster import Place

Command = Callable[..., None]

_OPTIONS = (
    click.option(
        "--allow-compile",
        is_flag=True,
        help="Compile programs here that were built for another machine, if the bundle has their portable "
        "form.",
    ),
    click.option(
        "--profile",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Write a trace of the run for Perfetto and TensorBoard.",
    ),
    click.option(
        "--coordinator",
        metavar="HOST:PORT",
        help="Run as one of several processes, one per host of the mesh; they meet here, at process 0.",
    ),
    click.option(
        "--process", type=int, metavar="N", help="Number of this process, from 0, which writes the video."
    ),
    click.option("--processes", type=int, metavar="M", help="How many processes there are."),
    click.option(
        "--cluster",
        is_flag=True,
        help="Take these three from what started the process: Slurm, Open MPI, a TPU slice, or "
        "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.",
    ),
    click.option("--no-prompt-cache", is_flag=True, help="Encode prompts anew, and don't keep the result."),
    click.option(
        "--trust",
        multiple=True,
        metavar="KEY.pub",
        help="Accept bundles from a remote that this key signed, beside those of the trusted-keys file "
        "(repeatable).",
    ),
    click.option(
        "--allow-unsigned", is_flag=True, help="Accept bundles from a remote that no trusted key signed."
    ),
    click.option(
        "--offline",
        is_flag=True,
        envvar="LTX_OFFLINE",
        show_envvar=True,
        help="Refuse every network connection; a bundle from a remote that needs one is taken as it was "
        "received before.",
    ),
    click.option("--paranoid", is_flag=True, help="Hash all that is loaded, even if it was hashed before."),
    click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
)


def run_options(command: Command) -> Command:
    """Add the options; the command gets `options`, a `launch.Options`, beside the `bundle` they are for."""

    @wraps(command)
    def read(
        *,
        bundle: str,
        allow_compile: bool,
        profile: Path | None,
        coordinator: str | None,
        process: int | None,
        processes: int | None,
        cluster: bool,
        no_prompt_cache: bool,
        trust: tuple[str, ...],
        allow_unsigned: bool,
        offline: bool,
        paranoid: bool,
        quiet: bool,
        **rest: Any,
    ) -> None:
        from ltx_run.launch import Options

        options = Options(
            prompt_cache=not no_prompt_cache,
            paranoid=paranoid,
            quiet=quiet,
            trust=_trust(bundle, trust, allow_unsigned),
            offline=offline,
            place=_place((coordinator, process, processes), cluster=cluster, offline=offline),
            allow_compile=allow_compile,
            profile=profile,
        )
        command(bundle=bundle, options=options, **rest)

    for option in reversed(_OPTIONS):
        read = option(read)
    return read


def _trust(bundle: str, keys: tuple[str, ...], allow_unsigned: bool) -> Trust:
    """Whose bundles are accepted; the user's trusted keys are read only if it matters."""
    from ltx_cache.address import is_address
    from ltx_cache.trust import Trust, trust

    if is_address(bundle):
        return trust(keys, allow_unsigned=allow_unsigned)
    if keys or allow_unsigned:
        raise click.UsageError(
            "--trust and --allow-unsigned are for bundles from hf:// and file:// addresses"
        )
    return Trust(())


def _place(given: tuple[str | None, int | None, int | None], *, cluster: bool, offline: bool) -> Place | None:
    """Which of several processes this is; None if it is alone."""
    from ltx_run.cluster import chosen

    place = chosen(given, os.environ if cluster else None)
    if offline and place:
        raise click.UsageError("--offline can't be used with several processes, which talk to each other")
    return place
