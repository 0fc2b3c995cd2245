"""`ltxbuild du`, `rm` and `gc`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from bundles import fake_bundle, publish
from commands import Command

import ltx_run.cli
from ltx_cache.errors import LtxError
from ltx_cache.layout import Layout
from ltx_cache.leases import Leases
from ltx_cache.store import Store
from ltx_run import launch
from ltxbuild.cli import cache
from ltxbuild.cli import compile as compiling

TINY = str(Path(__file__).parents[2] / "recipes/cpu_tiny.yaml")


def in_use(store: Store) -> bool:
    """Whether somebody holds a lease."""
    with Leases(Layout(store.root)).exclusive() as alone:
        return not alone


@pytest.fixture
def bundles(store: Store) -> Store:
    """Two bundles that share everything but their program, and a result in no bundle."""
    publish(store, fake_bundle(store, "one"))
    publish(store, fake_bundle(store, "two", code=b"other executable"))
    store.put_bytes(b"loose")
    return store


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A user at a terminal who says no; the value is what was asked."""
    asked: list[str] = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)

    def confirm(question: str, **_: Any) -> bool:
        asked.append(question)
        return False

    monkeypatch.setattr(click, "confirm", confirm)
    return asked


def test_shared_bytes_are_shown_once(bundles: Store, ltxbuild: Command) -> None:
    """Weights and tokenizer of both bundles are counted as shared."""
    found = json.loads(ltxbuild("du", "--json").out)
    assert found["shared"] == len(b"rank 0rank 1sharedtokenizer")
    assert [ref["name"] for ref in found["refs"]] == ["one", "two"]
    done = ltxbuild("du")
    assert (done.code, "shared by bundles" in done.out) == (0, True)
    assert "gc --dry-run" in done.err


def test_rm_forgets_and_gc_collects(bundles: Store, ltxbuild: Command) -> None:
    """Without a terminal nothing is asked; what the other bundle shares stays."""
    assert ltxbuild("rm", "two").code == 0
    assert [ref.name for ref in bundles.refs()] == ["one"]
    done = ltxbuild("gc", "--json")
    found = json.loads(done.out)
    assert (done.code, found["removed"], found["blobs"]) == (0, True, 3)
    assert ltxbuild("verify").code == 0


def test_rm_of_an_unknown_name_forgets_nothing(bundles: Store, ltxbuild: Command) -> None:
    """All names are looked up before the first is forgotten."""
    done = ltxbuild("rm", "one", "too")
    assert done.code == 2
    assert "did you mean two?" in done.err
    assert len(bundles.refs()) == 2


def test_a_user_is_asked(bundles: Store, ltxbuild: Command, terminal: list[str]) -> None:
    """A no changes nothing; -y asks nothing."""
    ltxbuild("rm", "one")
    ltxbuild("gc")
    assert terminal == ["forget one?", "remove this?"]
    assert len(bundles.refs()) == 2
    assert bundles.has(bundles.put_bytes(b"loose"))
    assert ltxbuild("rm", "one", "-y").code == 0
    assert ltxbuild("gc", "-y", "--keep", "0").code == 0
    assert len(terminal) == 2
    assert [ref.name for ref in bundles.refs()] == ["two"]


def test_a_dry_run_tells_and_keeps(bundles: Store, ltxbuild: Command, terminal: list[str]) -> None:
    """It asks nothing, since it removes nothing."""
    done = ltxbuild("gc", "--dry-run", "--max-size", "1", "--json")
    found = json.loads(done.out)
    assert (found["blobs"], found["removed"]) == (1, False)
    assert "bundles alone take" in done.err
    assert terminal == []
    assert "would remove" in done.err


def test_an_absent_cache_is_not_made(tmp_path: Path, ltxbuild: Command, store: Store) -> None:
    """There is nothing to collect and nothing to show."""
    assert ltxbuild("gc").code == ltxbuild("du").code == 0
    nothing = {"results": 0, "blobs": 0, "others": 0, "size": 0, "kept": 0, "used": 0}
    for more, removed in (((), True), (("--dry-run",), False)):
        done = ltxbuild("gc", "--json", *more)
        assert (done.code, json.loads(done.out)) == (0, {**nothing, "removed": removed})
        assert "there is no cache" in done.err
    assert not store.root.exists()


def test_gc_waits_no_longer_than_it_is_told(bundles: Store, ltxbuild: Command) -> None:
    """A cache in use is a failure with the time that was waited, and nothing is removed."""
    bundles.remove_ref("two")
    with bundles.in_use():
        done = ltxbuild("gc", "--wait", "0.2s")
        assert (done.code, done.out) == (1, "")
        assert "waiting up to 0.2 s" in done.err
        assert "still in use after 0.2 s" in done.err
        assert "waiting" not in ltxbuild("gc", "--wait", "0s").err
    assert bundles.has(bundles.put_bytes(b"loose"))
    assert ltxbuild("gc").code == 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1.5m", 90), ("12h", 43200), ("30d", 2592000), ("1W", 604800)]
)
def test_durations(text: str, seconds: float) -> None:
    """A number and a unit."""
    assert cache.duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [("7", 7), ("1kB", 1000), ("1.5 GB", 1_500_000_000), ("2GiB", 2**31), ("3t", 3 * 10**12)],
)
def test_sizes(text: str, count: int) -> None:
    """Decimal units, and binary ones with an i."""
    assert cache.size(text) == count


@pytest.mark.parametrize(
    "option",
    [
        ("--older-than", "30"),
        ("--older-than", "d"),
        ("--max-size", "1ib"),
        ("--max-size", "-1"),
        ("--keep", "-1"),
    ],
)
def test_bad_limits_are_usage_errors(option: tuple[str, str], ltxbuild: Command) -> None:
    """The message says what is expected."""
    assert ltxbuild("gc", *option).code == 2


def test_compile_holds_a_lease(store: Store, ltxbuild: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be collected between a lookup and the publication of the bundle."""
    held: list[bool] = []

    def build(*_: Any) -> None:
        held.append(in_use(store))

    monkeypatch.setattr(compiling, "_build", build)
    assert ltxbuild("compile", TINY, "--programs-only").code == 0
    assert held == [True]
    assert not in_use(store)


def test_a_run_holds_a_lease(bundles: Store, ltxbuild: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is collected under a running bundle: neither while it is opened nor while it runs."""
    held: list[bool] = []

    def look(*_: Any, **__: Any) -> None:
        held.append(in_use(bundles))

    def run(*_: Any, **__: Any) -> None:
        look()
        raise LtxError("enough")

    monkeypatch.setattr(launch, "prepare", look)
    monkeypatch.setattr("ltx_run.run.run", run)
    with pytest.raises(LtxError, match="enough"):
        ltx_run.cli.cli(["one", "-o", "x.mp4", "-p", "x", "-q"])
    assert held == [True, True]
