"""Model configurations, read from the `config` metadata of an official checkpoint.

Sizes come from the checkpoint. Switches that change the arithmetic are literals: a checkpoint of another
generation (LTX-2.0, 2.5) is refused with the field and the value instead of being computed wrongly.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

UpsamplerKind = Literal["spatial_x2", "spatial_x1.5", "temporal_x2"]
"""Kinds of latent upsamplers, by what they scale."""


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class TransformerConfig(_Config):
    """The `transformer` section: the audio-video transformer and its text connectors."""

    num_layers: int = 48
    num_attention_heads: int = 32
    attention_head_dim: int = 128
    in_channels: int = 128
    out_channels: int = 128
    cross_attention_dim: int = 4096
    caption_channels: int = 3840
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
    audio_connector_num_layers: int | None = None
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


class VaeBlock(_Config):
    """One stage of the video VAE: `res_x` (residual blocks) or a sampler such as `compress_all_res`."""

    kind: str
    num_layers: int = 1
    multiplier: int = 1


class VideoVaeConfig(_Config):
    """The `vae` section."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 128
    patch_size: int = 4
    decoder_base_channels: int = 128
    encoder_blocks: tuple[VaeBlock, ...]
    decoder_blocks: tuple[VaeBlock, ...]

    dims: Literal[3] = 3
    norm_layer: Literal["pixel_norm"]
    latent_log_var: Literal["uniform"] = "uniform"
    causal_decoder: Literal[False] = False
    timestep_conditioning: Literal[False]
    spatial_padding_mode: Literal["zeros"]

    @model_validator(mode="before")
    @classmethod
    def _blocks(cls, data: Any) -> Any:
        """Turn the checkpoint's `[kind, options]` pairs into blocks."""
        if not isinstance(data, dict):
            return data
        known = {"num_layers", "multiplier"}
        out = dict(data)
        for side in ("encoder_blocks", "decoder_blocks"):
            blocks = []
            for entry in data.get(side, ()):
                if isinstance(entry, dict):
                    blocks.append(entry)
                    continue
                kind, options = entry
                options = {"num_layers": options} if isinstance(options, int) else dict(options)
                active = sorted(k for k, v in options.items() if k not in known and v)
                if active:
                    raise ValueError(f"{side}: {kind} has unsupported options {', '.join(active)}")
                # What an absent multiplier means depends on the kind.
                defaults = {"multiplier": 2 if kind.endswith("_res") else 1}
                blocks.append({"kind": kind, **defaults, **{k: v for k, v in options.items() if k in known}})
            out[side] = blocks
        return out


class AudioVaeConfig(_Config):
    """The `audio_vae` section, flattened to what the decoder needs."""

    ch: int = 128
    out_ch: int = 2
    in_channels: int = 2
    ch_mult: tuple[int, ...] = (1, 2, 4)
    num_res_blocks: int = 2
    z_channels: int = 8
    mel_bins: int = 64
    sampling_rate: int = 16000
    hop_length: int = 160
    double_z: Literal[True] = True
    attn_resolutions: tuple[()] = ()
    mid_block_add_attention: Literal[False]
    norm_type: Literal["pixel"]
    causality_axis: Literal["height"]
    stft_causal: Literal[True] = True

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, data: Any) -> Any:
        """Accept the checkpoint's nested section as well as the flat form."""
        if not isinstance(data, dict) or "model" not in data:
            return data
        params = data["model"]["params"]
        stft = data.get("preprocessing", {}).get("stft", {})
        return {
            **params["ddconfig"],
            "sampling_rate": params.get("sampling_rate", 16000),
            "hop_length": stft.get("hop_length", 160),
            "stft_causal": stft.get("causal", True),
        }


class GeneratorConfig(_Config):
    """One waveform generator: the vocoder proper or its bandwidth extension."""

    upsample_initial_channel: int
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3
    resblock: Literal["AMP1"]
    stereo: Literal[True]
    activation: Literal["snakebeta"]
    use_tanh_at_final: Literal[False] = False
    use_bias_at_final: Literal[False] = False


class BandwidthConfig(GeneratorConfig):
    """The bandwidth extension: a generator and the spectrogram it reads."""

    input_sampling_rate: int
    output_sampling_rate: int
    hop_length: int
    n_fft: int
    num_mels: int


class VocoderConfig(_Config):
    """The `vocoder` section."""

    vocoder: GeneratorConfig
    bwe: BandwidthConfig


class LtxConfig(_Config):
    """The whole `config` metadata of a single-file LTX-2.3 checkpoint."""

    transformer: TransformerConfig
    vae: VideoVaeConfig
    audio_vae: AudioVaeConfig
    vocoder: VocoderConfig


class UpsamplerConfig(_Config):
    """The flat config of a latent upsampler file."""

    in_channels: int = 128
    mid_channels: Annotated[int, Field(multiple_of=32)] = 512
    num_blocks_per_stage: int = 4
    spatial_scale: float = 2.0
    dims: Literal[3] = 3
    spatial_upsample: bool = True
    temporal_upsample: bool = False
    rational_resampler: bool = False

    @model_validator(mode="after")
    def _is_of_a_kind(self) -> UpsamplerConfig:
        scales = (2.0, 1.5) if self.rational_resampler else (2.0,)
        if self.spatial_upsample == self.temporal_upsample or (
            self.spatial_upsample and self.spatial_scale not in scales
        ):
            raise ValueError(
                f"spatial_upsample {self.spatial_upsample}, temporal_upsample {self.temporal_upsample}, "
                f"spatial_scale {self.spatial_scale} and rational_resampler {self.rational_resampler} are "
                "none of the supported kinds: x2 in space, x1.5 in space (rational), x2 in time"
            )
        return self

    @property
    def kind(self) -> UpsamplerKind:
        """What it scales, and how much."""
        if self.temporal_upsample:
            return "temporal_x2"
        return "spatial_x2" if self.spatial_scale == 2 else "spatial_x1.5"


class RopeScaling(_Config):
    """Position scaling of Gemma's full-attention layers."""

    rope_type: Literal["linear"] = "linear"
    factor: float = 8.0


class GemmaConfig(_Config):
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
