"""Where the store is."""

from __future__ import annotations

import pwd
import sys
from pathlib import Path

import pytest

from ltx_cache.errors import NoHome
from ltx_cache.home import config_home, home


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user on Linux without any setting."""
    monkeypatch.delenv("LTX_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.setattr(sys, "platform", "linux")


def test_default() -> None:
    """Without settings it is in the user's cache folder."""
    assert home() == Path("/home/u/.cache/ltxbuild")


def test_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    """The XDG setting counts if it is absolute."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/u")
    assert home() == Path("/var/cache/u/ltxbuild")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert home() == Path("/home/u/.cache/ltxbuild")


def test_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS it is in the library folder."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert home() == Path("/home/u/Library/Caches/ltxbuild")


def test_ltx_home_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """LTX_HOME is taken as it is, with ~ and relative paths resolved; empty means not set."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/u")
    monkeypatch.chdir(tmp_path)
    for value, expected in [("/data/ltx", "/data/ltx"), ("~/ltx", "/home/u/ltx"), ("ltx", f"{tmp_path}/ltx")]:
        monkeypatch.setenv("LTX_HOME", value)
        assert home() == Path(expected)
    monkeypatch.setenv("LTX_HOME", "")
    assert home() == Path("/var/cache/u/ltxbuild")


def test_the_home_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who is in no list, as in a container, or a typo: it is said which variable leads out."""

    def unknown(_: object) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    with pytest.raises(NoHome, match=r"~/\.cache leads nowhere(.|\n)*set LTX_HOME to an absolute path"):
        home()
    with pytest.raises(NoHome, match=r"~/\.config leads nowhere(.|\n)*set XDG_CONFIG_HOME"):
        config_home()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(NoHome, match="~/Library/Caches leads nowhere"):
        home()
    monkeypatch.setenv("LTX_HOME", "~typo/x")
    with pytest.raises(NoHome, match=r"~typo/x leads nowhere(.|\n)*set LTX_HOME"):
        home()
    monkeypatch.setenv("LTX_HOME", "/data/ltx")
    assert home() == Path("/data/ltx")
