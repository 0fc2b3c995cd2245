"""Options of the commands that take bundles from a remote."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ltx_cache.trust import Trust, trust

Command = TypeVar("Command", bound=Callable[..., Any])

trust_option = click.option(
    "--trust",
    "trusted",
    multiple=True,
    metavar="KEY.pub",
    help="Accept bundles that this key signed, beside those of the trusted-keys file (repeatable).",
)
allow_unsigned_option = click.option(
    "--allow-unsigned", is_flag=True, help="Accept bundles that no trusted key signed."
)
offline_option = click.option(
    "--offline",
    is_flag=True,
    envvar="LTX_OFFLINE",
    show_envvar=True,
    help="Open no connection, and use what was received before.",
)


def trust_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say whose bundles are accepted, given to the command as `trust`.

    A command with an option `source` has a use for them only together with it.
    """

    @functools.wraps(command)
    def gathered(trusted: tuple[str, ...], allow_unsigned: bool, **others: Any) -> None:
        if "source" in others and others["source"] is None:
            if trusted or allow_unsigned:
                raise click.UsageError("--trust and --allow-unsigned are of use with --from only")
            command(trust=Trust(()), **others)
            return
        command(trust=trust(trusted, allow_unsigned=allow_unsigned), **others)

    return trust_option(allow_unsigned_option(gathered))
