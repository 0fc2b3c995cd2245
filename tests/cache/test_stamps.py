"""Stamps: what makes a file the same."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import cast

import pytest

from ltx_cache.layout import Layout
from ltx_cache.stamps import Stamps
from ltx_cache.store import Store

FIELDS = {"st_size": 1, "st_mtime_ns": 2, "st_ctime_ns": 3, "st_ino": 4}


def status(**changed: int) -> os.stat_result:
    """The status of a file."""
    return cast(os.stat_result, SimpleNamespace(**{**FIELDS, **changed}))


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_counts(store: Store, field: str) -> None:
    """A stamp stands for a file of the same size, times and inode only."""
    stamps = Stamps(Layout(store.root))
    stamps.keep("x", status(), "digest")
    assert stamps.find("x", status()) == "digest"
    assert stamps.find("x", status(**{field: 9})) is None
