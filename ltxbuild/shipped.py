"""Model configurations that come with the package, for plans and programs without a checkpoint."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from ltxbuild.components import ModelConfig
from ltxbuild.model.config import GemmaConfig, LtxConfig, UpsamplerConfig


@cache
def shipped(name: str) -> dict[str, Any]:
    """A model configuration that comes with the package, as raw JSON: `ltx`, `gemma`, `upsampler`."""
    text = (files("ltxbuild") / "data" / f"{name}.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def shipped_config(name: str) -> ModelConfig:
    """A model configuration that comes with the package."""
    data = shipped(name)
    return ModelConfig(
        LtxConfig.model_validate(data["ltx"]),
        GemmaConfig.model_validate(data["gemma"]),
        UpsamplerConfig.model_validate(data["upsampler"]),
    )
