"""`ltxbuild push` and `pull`: bundles between the cache and a remote."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from ltx_cache.address import address
from ltx_cache.home import home
from ltx_cache.names import checked_name
from ltx_cache.store import Store
from ltx_cache.transfer import Transfer, pull, push
from ltx_run.console import hint, human_bytes, say
from ltxbuild.bundles.contents import contents, keys
from ltxbuild.cli.options import json_option

REMOTE = "file:///FOLDER[@NAME]"


@click.command("push")
@click.argument("ref")
@click.argument("remote", metavar=REMOTE)
@json_option
def push_command(ref: str, remote: str, as_json: bool) -> None:
    """Send bundle REF to a remote, under its own name or NAME; only the blobs that it lacks are sent.

    \b
    Examples:
      ltxbuild push cpu-tiny file:///mnt/bundles
      ltxbuild push cpu-tiny file:///mnt/bundles@cpu-tiny-next
    """
    store, to = Store(home()), address(remote)
    name = to.name or ref
    with store.in_use(), _bar() as progress:
        manifest = store.ref(ref)
        extra = keys(store, store.open(manifest).read_bytes())
        done = push(store, manifest, to.remote, name, contents, extra, progress)
    _report("sent", name, done, as_json=as_json)
    hint(f"ltxbuild pull {to.remote.url}@{name}")


@click.command("pull")
@click.argument("remote", metavar=REMOTE)
@click.option("--as", "name", metavar="NAME", help="Name of the bundle in the cache, in place of its own.")
@json_option
def pull_command(remote: str, name: str | None, as_json: bool) -> None:
    """Receive a bundle from a remote; every blob is verified.

    Only what the cache lacks is received, and an interrupted pull goes on where it stopped.

    \b
    Examples:
      ltxbuild pull file:///mnt/bundles
      ltxbuild pull file:///mnt/bundles@cpu-tiny --as cpu-tiny-2
    """
    store, source = Store(home()), address(remote)
    there = source.only()
    here = checked_name("bundle name", name or there)
    with store.in_use(create=True), _bar() as progress:
        done = pull(store, source.remote, there, contents, progress)
        store.set_ref(here, done.manifest)
    _report("received", here, done, as_json=as_json)
    hint(f'ltx-run {here} --prompt "..." -o out.mp4')


def _report(verb: str, name: str, done: Transfer, *, as_json: bool) -> None:
    if as_json:
        counts = {"blobs": done.blobs, "bytes": done.size, "total": done.total}
        click.echo(json.dumps({"bundle": done.manifest.sha256, "name": name, **counts}, indent=2))
    size = f"{human_bytes(done.size)} of {human_bytes(done.total)}"
    say(f"{verb} {name} {done.manifest.sha256[:12]}: {done.blobs} blobs, {size}")


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Bytes done and in all, on a terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from ltx_run.console import talk_console

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=talk_console(), transient=True) as bars:
        task = bars.add_task("", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
