"""Model configurations that come with the package, for plans and programs without a checkpoint."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from ltxbuild.components import ModelConfig
from ltxbuild.model.config import GemmaConfig, LtxConfig, UpsamplerConfig, UpsamplerKind


@cache
def shipped(name: str) -> dict[str, Any]:
    """A model configuration that comes with the package, as JSON: `ltx`, `gemma`, `upsamplers` by kind."""
    text = (files("ltxbuild") / "data" / f"{name}.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def shipped_config(name: str, upsampler: UpsamplerKind = "spatial_x2") -> ModelConfig:
    """A model configuration that comes with the package, with one kind of upsampler."""
    data = shipped(name)
    return ModelConfig(
        LtxConfig.model_validate(data["ltx"]),
        GemmaConfig.model_validate(data["gemma"]),
        UpsamplerConfig.model_validate(data["upsamplers"][upsampler]),
    )
