"""What all configurations have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of a checkpoint's configuration; fields that nothing here depends on are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")
