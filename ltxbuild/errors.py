"""Errors of the builder: one class per decision that a user can take.

LtxError (ltx_cache.errors)
├── RecipeError        the recipe can't be used: fix the named field
├── CheckpointError    the weights can't be used: get the right files
├── UnknownProgram     a name that no program of the recipe or bundle has
├── ToolMissing        a package the command needs is not installed
├── BuildFailed        a program did not compile: read the log
├── NeffRefused        a NEFF from elsewhere is not what was exported: export and compile again
└── CacheDamaged       the cache holds broken files: repair it, then build or pull again
"""

from __future__ import annotations

from ltx_cache.errors import LtxError
from ltx_cache.errors import ToolMissing as ToolMissing


class RecipeError(LtxError):
    """A recipe that can't be used."""

    exit_code = 2


class CheckpointError(LtxError):
    """Weights that are missing, damaged or of another model."""

    exit_code = 2


class CheckpointAbsent(CheckpointError):
    """Weights that are on the Hub and not yet on this machine."""


class UnknownProgram(LtxError):
    """A program name that the recipe or the bundle doesn't have."""

    exit_code = 2


class BuildFailed(LtxError):
    """At least one program did not compile."""

    exit_code = 1


class NeffRefused(LtxError):
    """A NEFF from elsewhere that is not of the graph that was exported, or of no use."""

    exit_code = 2


class CacheDamaged(LtxError):
    """The cache holds files that are not what they should be."""
