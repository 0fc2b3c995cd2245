"""`ltxbuild du`, `rm` and `gc`: what the cache takes, and getting it back."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict

import click

from ltx_cache.gc import DAY, Garbage, Limits, collect, garbage
from ltx_cache.home import home
from ltx_cache.store import Store
from ltx_cache.usage import Usage, usage
from ltx_run.console import data_console, hint, human_bytes, say
from ltx_run.contents import contents
from ltxbuild.cli.options import json_option, yes_option

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY, "w": 7 * DAY}
SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
SIZES |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
NOTHING = Garbage(entries=(), blobs=(), others=(), size=0, kept=0, used=0)


def duration(text: str) -> float:
    """Seconds in a number with a unit.

    >>> duration("12h")
    43200.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.lower())
    if match is None:
        raise click.BadParameter(f"{text}: give a number and s, m, h, d or w, e.g. 30d")
    return float(match[1]) * UNITS[match[2]]


def size(text: str) -> int:
    """Bytes in a number with or without a unit.

    >>> size("50GB"), size("1GiB"), size("7")
    (50000000000, 1073741824, 7)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]?i?)b?", text.lower())
    if match is None or match[2] not in SIZES:
        raise click.BadParameter(f"{text}: give bytes or a unit, e.g. 500MB, 50GB or 50GiB")
    return int(float(match[1]) * SIZES[match[2]])


@click.command("du")
@json_option
def du_command(as_json: bool) -> None:
    """Show what each bundle takes in the cache; bytes that bundles share are counted once."""
    store = Store(home())
    with store.in_use():
        found = usage(store, contents)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    _show(found)
    if found.unused + found.loose:
        hint("ltxbuild gc --dry-run")


def _show(found: Usage) -> None:
    from rich.table import Table

    table = Table()
    table.add_column("what")
    for heading in ("whole", "counted"):
        table.add_column(heading, justify="right")
    for ref in found.refs:
        table.add_row(ref.name, human_bytes(ref.size), human_bytes(ref.own))
    table.add_section()
    for what, count in (
        ("shared by bundles", found.shared),
        ("results in no bundle", found.unused),
        ("blobs that nothing names", found.loose),
        ("records, logs, rest", found.rest),
    ):
        table.add_row(what, "", human_bytes(count))
    table.add_section()
    table.add_row("all", "", human_bytes(found.total))
    data_console().print(table)


@click.command("rm")
@click.argument("refs", metavar="REF...", nargs=-1, required=True)
@yes_option
def rm_command(refs: tuple[str, ...], yes: bool) -> None:
    """Forget bundles by name. Their bytes go with the next `ltxbuild gc`, except for what others share."""
    store = Store(home())
    for name in refs:
        store.ref(name)
    if not _agreed(f"forget {', '.join(refs)}?", yes=yes):
        return
    for name in refs:
        store.remove_ref(name)
        say(f"{name} is forgotten")
    hint("ltxbuild gc")


@click.command("gc")
@click.option("--keep", type=click.IntRange(0), metavar="N", help="Keep the N latest results in no bundle.")
@click.option("--older-than", type=duration, metavar="D", help="Keep what is younger, e.g. 30d or 12h.")
@click.option("--max-size", type=size, metavar="S", help="Keep the latest up to this size of the cache.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and stop.")
@click.option(
    "--wait",
    type=duration,
    default="10m",
    show_default=True,
    metavar="D",
    help="Wait so long for other commands to end, then give up; 0s doesn't wait.",
)
@yes_option
@json_option
def gc_command(
    keep: int | None,
    older_than: float | None,
    max_size: int | None,
    dry_run: bool,
    wait: float,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove results that no bundle needs, and what nothing names. Bundles stay; see `ltxbuild rm`.

    Without a limit, everything goes that is in no bundle. With several, a result stays that is within all of
    them. Removes nothing while another command uses the cache.

    \b
    Examples:
      ltxbuild gc --dry-run
      ltxbuild gc --older-than 30d
      ltxbuild gc --max-size 200GB -y
    """
    store, limits = Store(home()), Limits(keep, older_than, max_size)
    if not store.root.is_dir():
        say(f"there is no cache at {store.root}")
        _report(NOTHING, max_size, done=not dry_run, as_json=as_json)
        return
    if dry_run or _asks(yes=yes):
        with store.in_use():
            found = garbage(store, contents, limits)
        _report(found, max_size, done=False, as_json=as_json and dry_run)
        if dry_run or not _agreed("remove this?", yes=yes):
            return
    in_use = f"the cache is in use: waiting up to {wait:g} s"
    found = collect(store, contents, limits, wait=wait, on_wait=lambda: say(in_use))
    _report(found, max_size, done=True, as_json=as_json)


def _report(found: Garbage, max_size: int | None, *, done: bool, as_json: bool) -> None:
    counts = {"results": len(found.entries), "blobs": len(found.blobs), "others": len(found.others)}
    sizes = {"size": found.size, "kept": found.kept, "used": found.used}
    if as_json:
        click.echo(json.dumps({**counts, **sizes, "removed": done}, indent=2))
    verb = "removed" if done else "would remove"
    listed = ", ".join(f"{count} {what}" for what, count in counts.items())
    say(f"{verb} {human_bytes(found.size)} ({listed}); {human_bytes(found.kept)} stay")
    if max_size is not None and found.used > max_size:
        say(f"bundles alone take {human_bytes(found.used)}: forget some with ltxbuild rm")


def _asks(*, yes: bool) -> bool:
    """Whether somebody is there to be asked."""
    return not yes and sys.stdin.isatty()


def _agreed(question: str, *, yes: bool) -> bool:
    return not _asks(yes=yes) or click.confirm(question, err=True)
