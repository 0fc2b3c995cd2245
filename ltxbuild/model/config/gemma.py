"""Configuration of the text encoder."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ltxbuild.model.config.section import Section


class RopeScaling(Section):
    """Position scaling of Gemma's full-attention layers."""

    rope_type: Literal["linear"] = "linear"
    factor: float = 8.0


class GemmaConfig(Section):
    """The `text_config` of a Gemma-3 directory (transformers 4 and 5 spellings)."""

    vocab_size: int = 262208
    hidden_size: int = 3840
    intermediate_size: int = 15360
    num_hidden_layers: int = 48
    num_attention_heads: int = 16
    num_key_value_heads: int = 8
    head_dim: int = 256
    query_pre_attn_scalar: float = 256
    rms_norm_eps: float = 1e-6
    sliding_window: int = 1024
    sliding_window_pattern: int = 6
    layer_types: tuple[Literal["sliding_attention", "full_attention"], ...] | None = None
    rope_theta: float = 1_000_000.0
    rope_local_base_freq: float = 10_000.0
    rope_scaling: RopeScaling | None = Field(default_factory=RopeScaling)
    attention_bias: Literal[False] = False
    attn_logit_softcapping: None = None
    final_logit_softcapping: None = None
    hidden_activation: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"

    @model_validator(mode="before")
    @classmethod
    def _both_spellings(cls, data: Any) -> Any:
        """Transformers 5 nests the two RoPE bases under `rope_parameters`."""
        if not isinstance(data, dict) or not isinstance(data.get("rope_parameters"), dict):
            return data
        full = data["rope_parameters"].get("full_attention", {})
        sliding = data["rope_parameters"].get("sliding_attention", {})
        scaled = full.get("rope_type", "default") != "default"
        return {
            **data,
            "rope_theta": full.get("rope_theta", 1_000_000.0),
            "rope_local_base_freq": sliding.get("rope_theta", 10_000.0),
            "rope_scaling": {"rope_type": full["rope_type"], "factor": full["factor"]} if scaled else None,
        }

    @property
    def is_full_attention(self) -> tuple[bool, ...]:
        """Per layer, whether it attends to everything before it (otherwise a sliding window)."""
        if self.layer_types is not None:
            return tuple(kind == "full_attention" for kind in self.layer_types)
        return tuple((i + 1) % self.sliding_window_pattern == 0 for i in range(self.num_hidden_layers))
