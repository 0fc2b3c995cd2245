"""The examples in the docstrings of the package."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import tempfile
from pathlib import Path

import pytest

import ltx_cache

MODULES = [f"ltx_cache.{module.name}" for module in pkgutil.iter_modules(ltx_cache.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of a module gives what it says."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.parametrize("name", ["store", "key", "blobref", "home", "canonical", "errors"])
def test_public_modules_have_an_example(name: str) -> None:
    """Every public module opens with an example."""
    assert ">>>" in (importlib.import_module(f"ltx_cache.{name}").__doc__ or "")
