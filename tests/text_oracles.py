"""The official text path in torch: Gemma towers, the feature extractor and padded prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from oracles import import_oracles, randomize, tiny_config

from ltxbuild.model.config import GemmaConfig, TransformerConfig

import_oracles()

from ltx_core.text_encoders.gemma.feature_extractor import FeatureExtractorV2  # noqa: E402
from transformers import Gemma3TextConfig, Gemma3TextModel  # noqa: E402

HIDDEN = 24
LAYERS = 4

FULL_SIZES = {
    "num_attention_heads": 32,
    "attention_head_dim": 128,
    "cross_attention_dim": 4096,
    "caption_channels": 3840,
    "audio_num_attention_heads": 32,
    "audio_attention_head_dim": 64,
    "audio_cross_attention_dim": 2048,
    "connector_num_layers": 8,
    "connector_num_attention_heads": 32,
    "connector_attention_head_dim": 128,
    "audio_connector_num_attention_heads": 32,
    "audio_connector_attention_head_dim": 64,
}
"""What the 22B checkpoint has in place of the tiny sizes of the text path."""


def transformer_section(**sizes: Any) -> dict[str, Any]:
    """The `transformer` section of the tiny checkpoint with other sizes."""
    return {**tiny_config()["transformer"], **sizes}


def tiny_transformer() -> TransformerConfig:
    """Config of the tiny checkpoint's transformer and connectors."""
    return TransformerConfig.model_validate(transformer_section())


def tower(**overrides: Any) -> tuple[Gemma3TextModel, GemmaConfig]:
    """A tiny random Gemma whose layers alternate between sliding and full attention."""
    sizes: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": HIDDEN,
        "intermediate_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 1024,
        "sliding_window_pattern": 2,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    config = Gemma3TextConfig(**{**sizes, **overrides})
    model = Gemma3TextModel(config)
    randomize(model)
    for name, weight in model.state_dict().items():
        if "norm" in name:
            weight -= 1  # Gemma stores the distance of a norm's factor from 1.
    return model, GemmaConfig.model_validate(config.to_dict())


def extractor(transformer: TransformerConfig, hidden: int, layers: int) -> FeatureExtractorV2:
    """The official feature extractor over `layers + 1` states, not filled."""
    width = hidden * (layers + 1)
    video = torch.nn.Linear(width, transformer.video_dim)
    audio = torch.nn.Linear(width, transformer.audio_dim)
    return FeatureExtractorV2(video, hidden, audio)


def text_state(tower: torch.nn.Module, extractor: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Both state dicts under the names of the official files."""
    parts = (("language_model.model.", tower), ("text_embedding_projection.", extractor))
    return {f"{prefix}{name}": t for prefix, module in parts for name, t in module.state_dict().items()}


def left_padded(lengths: list[int], slots: int, vocabulary: int = 320) -> tuple[NDArray[Any], NDArray[Any]]:
    """Random prompts: token ids `[B, slots]` padded with 0 on the left, and their mask."""
    mask = np.arange(slots) >= slots - np.asarray(lengths)[:, None]
    tokens = np.random.default_rng(1).integers(4, vocabulary, mask.shape)
    return np.where(mask, tokens, 0).astype(np.int32), mask
