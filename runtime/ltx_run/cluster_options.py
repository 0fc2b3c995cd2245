"""Options for one of several processes, made into its place among them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

Command = Callable[..., None]


def several_processes(command: Command) -> Command:
    """Add the options; the command gets `place`, which is None for a process that is alone."""

    @wraps(command)
    def placed(
        *, coordinator: str | None, process: int | None, processes: int | None, cluster: bool, **rest: Any
    ) -> None:
        from ltx_run.cluster import chosen

        environment = os.environ if cluster else None
        command(place=chosen((coordinator, process, processes), environment), **rest)

    for option in reversed(_OPTIONS):
        placed = option(placed)
    return placed


_OPTIONS = (
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
)
