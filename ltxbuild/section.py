"""What the sections of a recipe have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A strict, unchangeable part of a recipe: unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
