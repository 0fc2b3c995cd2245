"""`ltxbuild keygen` where nobody knows the user: in a container, without a name or a home."""

from __future__ import annotations

import getpass
import os
import platform
from pathlib import Path
from unittest.mock import Mock

import pytest
from commands import Command

from ltx_cache.errors import NoHome


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 1234"), OSError("No username set")])
def test_a_user_without_a_name_has_a_number(
    error: Exception, ltxbuild: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Python raises depends on its version."""
    monkeypatch.setattr(getpass, "getuser", Mock(side_effect=error))
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    done = ltxbuild("keygen", str(tmp_path / "key"))
    assert done.code == 0, done.err
    assert done.out.endswith(f" 1234@{platform.node()}\n")


def test_without_a_home_there_is_no_advice(
    ltxbuild: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is written and shown; there is no file of trusted keys to add it to."""
    monkeypatch.setattr("ltx_cache.trust.trusted_keys", Mock(side_effect=NoHome("~", "XDG_CONFIG_HOME")))
    done = ltxbuild("keygen", str(tmp_path / "key"))
    assert (done.code, (tmp_path / "key").exists()) == (0, True)
    assert "key.pub" in done.err
    assert "hint:" not in done.err
