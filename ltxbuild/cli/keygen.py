"""`ltxbuild keygen`: a key to sign bundles with."""

from __future__ import annotations

import getpass
import os
import platform
from contextlib import suppress
from pathlib import Path

import click

from ltx_cache.errors import NoHome
from ltx_run.console import hint, say


@click.command("keygen")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--comment", metavar="TEXT", help="Whose key it is.  [default: USER@HOST]")
@click.option(
    "--openssf",
    is_flag=True,
    help="Make an ECDSA key, whose signatures have the OpenSSF model signing format.",
)
def keygen_command(file: Path, comment: str | None, openssf: bool) -> None:
    """Make a key: FILE to sign bundles with, and FILE.pub for those who shall trust it.

    It is an Ed25519 key, which all installations can check. FILE is not under a passphrase: whoever can read
    it can sign. The public key is printed.

    \b
    Examples:
      ltxbuild keygen ~/.config/ltxbuild/release.key
      ltxbuild push cpu-tiny hf://org/repo --sign ~/.config/ltxbuild/release.key
      ltx-run hf://org/repo --trust release.key.pub --prompt "..." -o out.mp4
    """
    from ltx_cache.signing import generate

    public = generate(file, comment or f"{_user()}@{platform.node()}", elliptic=openssf)
    click.echo(public.line)
    say(f"wrote {file} (keep it secret) and {file}.pub: {public.fingerprint}")
    _advise(file)


def _user() -> str:
    """The user's name, or number if nobody gave it a name, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the first before Python 3.13
        return str(os.getuid())


def _advise(file: Path) -> None:
    from ltx_cache.trust import trusted_keys

    with suppress(NoHome):  # the key is made all the same
        hint(f"to trust it always: cat {file}.pub >> {trusted_keys()}")
