"""What programs of several parts share: a latent's shape, and the form of one tensor in, one out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax import Array

from ltxbuild.compiler.lower import Tensor, Traceable
from ltxbuild.components import ModelConfig
from ltxbuild.model.flash import Blocks
from ltxbuild.model.layers import AttentionKind, Params
from ltxbuild.plan.programspec import Forms


def video_latent(size: dict[str, Any], config: ModelConfig, dtype: str) -> Tensor:
    """The latent `[1, C, F, h, w]` of a video or of a tile."""
    grid = (size["frames"], size["height"], size["width"])
    return Tensor("latent", (1, config.ltx.vae.latent_channels, *grid), dtype)


def attention_kind(forms: Forms) -> AttentionKind:
    """How a program's attention is computed."""
    return Blocks(*forms.blocks) if forms.attention == "pallas" else forms.attention


def one_to_one(function: Callable[[Params, Array], Array], tensor: Tensor, output: str) -> Traceable:
    """A program with one tensor in and one out."""
    return Traceable(lambda params, array: (function(params, array),), (tensor,), (output,))
