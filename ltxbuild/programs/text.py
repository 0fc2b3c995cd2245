"""Programs of the text path."""

from __future__ import annotations

from functools import partial
from typing import Any

from jax import Array

from ltxbuild.compiler.lower import Tensor, Traceable
from ltxbuild.components import ModelConfig
from ltxbuild.model import connector, gemma
from ltxbuild.model.layers import Params
from ltxbuild.plan.programspec import Forms
from ltxbuild.programs.shapes import attention_kind


def text_encoder(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """Token ids and mask `[B, S]` to features of both modalities."""
    shape = (size["batch"], size["length"])
    encode = partial(gemma.encode, config=config.gemma, kind=attention_kind(forms), short=forms.short)
    tensors = (Tensor("tokens", shape, "int32"), Tensor("mask", shape, "bool"))
    return Traceable(encode, tensors, ("features.video", "features.audio"))


def connectors(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """Features to the contexts that the transformer attends to; a second prompt is the negative one."""
    shape = (size["batch"], size["length"])
    transformer = config.ltx.transformer
    tensors = (
        Tensor("features.video", (*shape, transformer.video_dim), dtype),
        Tensor("features.audio", (*shape, transformer.audio_dim), dtype),
        Tensor("mask", shape, "bool"),
    )
    names = ("context", "context.negative")[: size["batch"]]

    def connect(params: Params, video: Array, audio: Array, mask: Array) -> tuple[Array, ...]:
        contexts = connector.connect(
            params, video, audio, mask, config=transformer, kind=attention_kind(forms)
        )
        return tuple(context[i : i + 1] for i in range(len(names)) for context in contexts)

    return Traceable(
        connect, tensors, tuple(f"{name}.{side}" for name in names for side in ("video", "audio"))
    )
