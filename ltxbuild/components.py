"""The components of an LTX-2.3 checkpoint: which parameter table and which config sections each one has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from ltxbuild.model.config import GemmaConfig, LtxConfig, UpsamplerConfig
from ltxbuild.model.params import ParamTable


@dataclass(frozen=True)
class ModelConfig:
    """All configuration of a model: the single file, the Gemma directory, the upsampler file."""

    ltx: LtxConfig
    gemma: GemmaConfig
    upsampler: UpsamplerConfig | None = None


@dataclass(frozen=True, slots=True)
class Component:
    """One set of weights and the functions that use it.

    Attributes:
        module: Its `params(*sections)` gives the parameter table.
        sections: The config sections the component depends on, in the order `params` takes them.
    """

    module: str
    sections: Callable[[ModelConfig], tuple[BaseModel, ...]]

    def config(self, config: ModelConfig) -> list[dict[str, Any]]:
        """The sections as JSON, for keys."""
        return [section.model_dump(mode="json") for section in self.sections(config)]

    def table(self, config: ModelConfig) -> ParamTable:
        """The component's parameters; imports the model's code and with it jax."""
        table: ParamTable = import_module(self.module).params(*self.sections(config))
        return table


def _upsampler(config: ModelConfig) -> tuple[BaseModel, ...]:
    if config.upsampler is None:
        raise ValueError("the model has no upsampler config")
    return (config.upsampler,)


COMPONENTS: Mapping[str, Component] = MappingProxyType(
    {
        "text_encoder": Component("ltxbuild.model.gemma", lambda c: (c.gemma, c.ltx.transformer)),
        "connectors": Component("ltxbuild.model.connector", lambda c: (c.ltx.transformer,)),
        "transformer": Component("ltxbuild.model.transformer", lambda c: (c.ltx.transformer,)),
        "upsampler": Component("ltxbuild.model.upsampler", _upsampler),
        "video_encoder": Component("ltxbuild.model.video_encoder", lambda c: (c.ltx.vae,)),
        "video_decoder": Component("ltxbuild.model.video_decoder", lambda c: (c.ltx.vae,)),
        "audio_encoder": Component("ltxbuild.model.audio_encoder", lambda c: (c.ltx.audio_vae,)),
        "audio_decoder": Component("ltxbuild.model.audio_decoder", lambda c: (c.ltx.audio_vae,)),
        "vocoder": Component("ltxbuild.model.vocoder", lambda c: (c.ltx.vocoder,)),
    }
)
