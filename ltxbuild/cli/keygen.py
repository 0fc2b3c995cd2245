"""`ltxbuild keygen`: a key to sign bundles with."""

from __future__ import annotations

import getpass
import platform
from pathlib import Path

import click

from ltx_run.console import hint, say


@click.command("keygen")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--comment", metavar="TEXT", help="Whose key it is.  [default: USER@HOST]")
def keygen_command(file: Path, comment: str | None) -> None:
    """Make an Ed25519 key: FILE to sign bundles with, and FILE.pub for those who shall trust it.

    FILE is not under a passphrase: whoever can read it can sign. The public key is printed.

    \b
    Examples:
      ltxbuild keygen ~/.config/ltxbuild/release.key
      ltxbuild push cpu-tiny hf://org/repo --sign ~/.config/ltxbuild/release.key
      ltx-run hf://org/repo --trust release.key.pub --prompt "..." -o out.mp4
    """
    from ltx_cache.signing import generate
    from ltx_cache.trust import trusted_keys

    public = generate(file, comment or f"{getpass.getuser()}@{platform.node()}")
    click.echo(public.line)
    say(f"wrote {file} (keep it secret) and {file}.pub: {public.fingerprint}")
    hint(f"to trust it always: cat {file}.pub >> {trusted_keys()}")
