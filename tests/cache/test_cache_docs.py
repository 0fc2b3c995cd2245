"""docs/cache.md says what is so."""

from __future__ import annotations

import ast
import doctest
import re
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "cache.md"
PROMISES = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)


def known_tests() -> set[str]:
    """Names of all tests of the store and of the commands on it."""
    trees = [ast.parse(path.read_text()) for path in HERE.parent.glob("*/test_*.py")]
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_all_promises_are_there() -> None:
    """The page makes the promises that the store is built for."""
    assert [int(number) for number, _, _ in PROMISES] == list(range(1, 13))


@pytest.mark.parametrize(("number", "promise", "named"), PROMISES, ids=[number for number, _, _ in PROMISES])
def test_every_promise_is_tested(number: str, promise: str, named: str) -> None:
    """Each promise names tests that exist."""
    found = set(re.findall(r"`(test_\w+)`", named))
    assert found, promise
    assert found <= known_tests()


def test_the_examples_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of the page give what they say."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 10
    assert result.failed == 0
