"""The error tree."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

import ltx_cache.errors as errors
from ltx_cache.errors import LtxError

EXAMPLES: list[LtxError] = [
    LtxError("what", hint="next"),
    errors.StoreNotWritable(Path("/s/tmp"), "Permission denied"),
    errors.StorageFull(Path("/s/tmp"), "No space left on device"),
    errors.NoHome("~/.cache", "LTX_HOME"),
    errors.FileNotReadable(Path("/s/x"), "Input/output error"),
    errors.StoreInUse(Path("/s"), 60.0, Path("/s/locks/in-use.lease")),
    errors.UnsupportedLayout(Path("/s"), "'2'", 1),
    errors.CorruptBlob("d" * 64, Path("/s/quarantine/x"), "expected digest", "actual digest"),
    errors.MissingBlob("d" * 64, Path("/s")),
    errors.BadEntry(Path("/s/refs/x.json"), "its checksum does not match"),
    errors.BadName("ref", "../x", "use letters"),
    errors.UnknownRef("tinny", ["tiny"], Path("/s")),
    errors.FileChanged(Path("/m")),
    errors.WrongBytes("d (3 bytes)", "e (4 bytes)"),
    errors.BundleUnreadable("what bundle x needs can't be told", hint="ltxbuild rm x"),
    errors.RemoteFailed("the connection was lost"),
    errors.UnknownBundle("file:///x has no bundle y", hint="it has: z"),
    errors.BadAddress("'x' is no address of a remote"),
    errors.NotTrusted("x is signed by nobody who is trusted"),
    errors.BadKey("k is no private key"),
    errors.ToolMissing("reading x needs y, which is not installed", hint="pip install y"),
]


def test_every_class_has_an_example_here_and_a_line_in_the_tree() -> None:
    """The drawn tree and these tests know every class."""
    defined = {c.__name__ for c in vars(errors).values() if isinstance(c, type) and issubclass(c, LtxError)}
    assert {type(error).__name__ for error in EXAMPLES} == defined
    tree = (errors.__doc__ or "").split("\n\n")[1]
    assert all(name in tree for name in defined)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_are_one_line_and_a_hint(error: LtxError) -> None:
    """A message is one line; what is printed ends with the hint; the exit code is one of three."""
    assert error.message
    assert "\n" not in error.message
    assert str(error) == (error.message if error.hint is None else f"{error.message}\n  {error.hint}")
    assert error.exit_code in (1, 2, 3)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_can_cross_processes(error: LtxError) -> None:
    """A copy, as a process pool makes one, keeps type, message and fields."""
    twin = copy.copy(error)
    assert type(twin) is type(error)
    assert vars(twin) == vars(error)


def test_store_errors_name_the_variable_to_set() -> None:
    """Whoever can't write to the store learns how to move it."""
    for error in EXAMPLES:
        if isinstance(error, (errors.StoreNotWritable, errors.UnsupportedLayout)):
            assert "LTX_HOME" in str(error)


def test_unknown_ref_lists_the_nearest() -> None:
    """The hint lists similar names, or says that there are none at all."""
    assert "did you mean tiny or tiny2?" in str(errors.UnknownRef("tinny", ["tiny", "tiny2"], Path("/s")))
    assert "no refs yet" in str(errors.UnknownRef("tinny", [], Path("/s")))
