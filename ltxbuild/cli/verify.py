"""`ltxbuild verify`: hash the cache again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click

from ltx_cache.home import home
from ltx_cache.store import Store
from ltx_cache.verify import Progress, Verified, verify, verify_ref
from ltx_run.acquire import part
from ltx_run.console import data_console, human_bytes, say
from ltx_run.contents import contents
from ltxbuild.cli.options import json_option
from ltxbuild.errors import CacheDamaged


@click.command("verify")
@click.argument("ref", required=False)
@click.option(
    "--repair", is_flag=True, help="Remove broken entries, so that the next compile makes them again."
)
@json_option
def verify_command(ref: str | None, repair: bool, as_json: bool) -> None:
    """Hash every blob of the cache, or of bundle REF alone, and check all entries and refs.

    Damaged blobs are set aside in the cache's quarantine folder. Exit code 1 if anything was wrong.

    \b
    Examples:
      ltxbuild verify
      ltxbuild verify cpu-tiny
      ltxbuild verify --repair; ltxbuild compile recipes/cpu_tiny.yaml
    """
    if ref is not None and repair:
        raise click.UsageError("--repair is for the whole cache: leave REF out")
    store = Store(home())
    with store.in_use(), _bar() as progress:
        if ref is None:
            found = verify(store, contents, part=part, repair=repair, progress=progress)
        else:
            found = verify_ref(store, ref, contents, progress, part)
    _show(found, as_json=as_json)
    if found.problems:
        raise CacheDamaged(
            f"{len(found.problems)} problems in {ref or store.root}", hint=_advice(found, repair)
        )


def _advice(found: Verified, repair: bool) -> str:
    if repair or all(problem.what == "blob" for problem in found.problems):
        return "compile or pull what was damaged again"
    return "ltxbuild verify --repair, then compile or pull what was damaged again"


def _show(found: Verified, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    say(f"{found.blobs} blobs hashed ({human_bytes(found.size)}), {found.records} records read")
    if not found.problems:
        say("everything is as it was written")
        return
    from rich.table import Table

    table = Table()
    for heading in ("what", "name", "wrong", "state"):
        table.add_column(heading, overflow="fold")
    for problem in found.problems:
        table.add_row(
            problem.what, problem.name, problem.reason, "removed" if problem.removed else "still there"
        )
    data_console().print(table)


@contextmanager
def _bar() -> Iterator[Progress]:
    """A count of the bytes hashed, on a terminal."""
    from rich.progress import DownloadColumn, SpinnerColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    from ltx_run.console import talk_console

    columns = (SpinnerColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=talk_console(), transient=True) as bars:
        task = bars.add_task("", total=None)
        yield lambda count: bars.advance(task, count)
