"""Configuration of the transformer and of its text connectors."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from ltxbuild.model.config.section import Section

CONNECTOR_SIZES = (
    "connector_num_layers",
    "connector_num_attention_heads",
    "connector_attention_head_dim",
)


class TransformerConfig(Section):
    """The `transformer` section: the audio-video transformer and its text connectors."""

    num_layers: int = 48
    num_attention_heads: int = 32
    attention_head_dim: int = 128
    in_channels: int = 128
    out_channels: int = 128
    cross_attention_dim: int = 4096
    audio_num_attention_heads: int = 32
    audio_attention_head_dim: int = 64
    audio_in_channels: int = 128
    audio_out_channels: int = 128
    audio_cross_attention_dim: int = 2048
    positional_embedding_theta: float = 10000.0
    positional_embedding_max_pos: tuple[int, int, int] = (20, 2048, 2048)
    audio_positional_embedding_max_pos: tuple[int] = (20,)
    timestep_scale_multiplier: float = 1000.0
    av_ca_timestep_scale_multiplier: float = 1.0
    norm_eps: float = 1e-6

    connector_num_layers: int = 2
    connector_num_attention_heads: int = 30
    connector_attention_head_dim: int = 128
    connector_positional_embedding_max_pos: tuple[int] = (1,)
    audio_connector_num_layers: int = 2
    audio_connector_num_attention_heads: int = 30
    audio_connector_attention_head_dim: int = 128

    positional_embedding_type: Literal["rope"]
    rope_type: Literal["split"]
    frequencies_precision: Literal["float64"]
    use_middle_indices_grid: Literal[True] = True
    causal_temporal_positioning: Literal[True] = True
    apply_gated_attention: Literal[True]
    cross_attention_adaln: Literal[True]
    av_cross_ada_norm: Literal[True] = True
    activation_fn: Literal["gelu-approximate"] = "gelu-approximate"
    attention_bias: Literal[True] = True
    qk_norm: Literal["rms_norm"] = "rms_norm"
    standardization_norm: Literal["rms_norm"] = "rms_norm"
    norm_elementwise_affine: Literal[False] = False
    use_embeddings_connector: Literal[True] = True
    connector_num_learnable_registers: int = 128
    connector_norm_output: Literal[True] = True
    connector_apply_gated_attention: Literal[True] = True
    caption_proj_before_connector: Literal[True]
    caption_projection_first_linear: Literal[False]
    caption_projection_second_linear: Literal[False]
    caption_proj_input_norm: Literal[False]
    text_encoder_norm_type: Literal["per_token_rms"] = "per_token_rms"

    @model_validator(mode="before")
    @classmethod
    def _as_video(cls, data: Any) -> Any:
        """What is not said of audio's connector is as video's, as in the official loader."""
        if not isinstance(data, dict):
            return data
        return {**{f"audio_{name}": data[name] for name in CONNECTOR_SIZES if name in data}, **data}

    @model_validator(mode="after")
    def _widths_agree(self) -> TransformerConfig:
        if self.num_attention_heads != self.audio_num_attention_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} and audio_num_attention_heads "
                f"{self.audio_num_attention_heads} must be equal"
            )
        for name, got, want in (
            ("cross_attention_dim", self.cross_attention_dim, self.video_dim),
            ("audio_cross_attention_dim", self.audio_cross_attention_dim, self.audio_dim),
            ("connector width", self.video_connector_dim, self.video_dim),
            ("audio connector width", self.audio_connector_dim, self.audio_dim),
        ):
            if got != want:
                raise ValueError(f"{name} is {got}, the attention it feeds is {want} wide")
        return self

    @property
    def video_dim(self) -> int:
        """Width of a video token inside the transformer."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def audio_dim(self) -> int:
        """Width of an audio token inside the transformer."""
        return self.audio_num_attention_heads * self.audio_attention_head_dim

    @property
    def video_connector_dim(self) -> int:
        """Width of the video text connector."""
        return self.connector_num_attention_heads * self.connector_attention_head_dim

    @property
    def audio_connector_dim(self) -> int:
        """Width of the audio text connector."""
        return self.audio_connector_num_attention_heads * self.audio_connector_attention_head_dim
