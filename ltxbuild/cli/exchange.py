"""`ltxbuild bundle` and `unbundle`: bundles as files."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ltx_cache.files import reading
from ltx_cache.home import home
from ltx_cache.store import Store
from ltx_run.console import hint, human_bytes, say

SEPARATORS = ("/", "\\")


@click.command("bundle")
@click.argument("ref")
@click.argument("output", metavar="OUT.tar|DIR/")
def bundle_command(ref: str, output: str) -> None:
    """Write bundle REF to one file, or to a new directory if the name ends in a slash.

    The same bundle always gives the same bytes. An existing file is replaced when the new one is complete.

    \b
    Examples:
      ltxbuild bundle cpu-tiny cpu-tiny.tar
      ltxbuild bundle cpu-tiny /media/stick/cpu-tiny/
    """
    from ltx_run.acquire import whole
    from ltxbuild.bundles.archive import pack, unfold

    store = Store(home())
    with store.in_use():
        write = unfold if output.endswith(SEPARATORS) else pack
        size = write(store, whole(store, ref), Path(output))
    say(f"wrote {output}: {human_bytes(size)}")
    hint(f"ltx-run {output} ..." if output.endswith(SEPARATORS) else f"ltxbuild unbundle {output}")


@click.command("unbundle")
@click.argument("file", metavar="FILE.tar|-")
@click.option("--as", "name", metavar="NAME", help="Name of the bundle in the cache, in place of its own.")
def unbundle_command(file: str, name: str | None) -> None:
    """Read a bundle's archive into the cache; every blob is compared with its digest.

    \b
    Examples:
      ltxbuild unbundle cpu-tiny.tar
      ssh builder cat cpu-tiny.tar | ltxbuild unbundle - --as cpu-tiny-2
    """
    from ltxbuild.bundles.unarchive import unpack

    store = Store(home())
    with store.in_use(create=True):
        if file == "-":
            found, manifest = unpack(sys.stdin.buffer, store, name)
        else:
            path = Path(file)
            with reading(path):
                source = path.open("rb")
            with source:
                found, manifest = unpack(source, store, name)
    say(f"{found} is {manifest.sha256[:12]}")
    hint(f'ltx-run {found} --prompt "..." -o out.mp4')
