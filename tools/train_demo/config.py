"""Sizes of the demo model: the official configuration with everything that is a number made small."""

from __future__ import annotations

import copy
from typing import Any

from ltxbuild.components import ModelConfig
from ltxbuild.model.config import GemmaConfig, LtxConfig, UpsamplerConfig
from ltxbuild.synthetic.shipped import shipped

LATENT_CHANNELS = 48
AUDIO_CHANNELS = 16
"""Values of one audio token: latent channels times the 16 frequency cells of the 64 mel bins."""
HEADS, HEAD_DIM = 4, 32
WIDTH = HEADS * HEAD_DIM
TEXT_WIDTH = 64

TRANSFORMER = {
    "num_layers": 4,
    "num_attention_heads": HEADS,
    "attention_head_dim": HEAD_DIM,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "cross_attention_dim": WIDTH,
    "caption_channels": TEXT_WIDTH,
    "audio_num_attention_heads": HEADS,
    "audio_attention_head_dim": HEAD_DIM,
    "audio_in_channels": AUDIO_CHANNELS,
    "audio_out_channels": AUDIO_CHANNELS,
    "audio_cross_attention_dim": WIDTH,
    "connector_num_layers": 1,
    "connector_num_attention_heads": HEADS,
    "connector_attention_head_dim": HEAD_DIM,
    "audio_connector_num_attention_heads": HEADS,
    "audio_connector_attention_head_dim": HEAD_DIM,
    "connector_num_learnable_registers": 16,
    # The world is small: so are its coordinates, and the span of frequencies that tell them apart.
    "positional_embedding_theta": 100.0,
    "positional_embedding_max_pos": [2, 256, 256],
    "audio_positional_embedding_max_pos": [2],
}
RESIDUAL = ["res_x", {"num_layers": 1}]
VAE = {
    "latent_channels": LATENT_CHANNELS,
    "decoder_base_channels": 8,
    "encoder_blocks": [
        ["compress_all_res", {"multiplier": 1}],
        ["compress_all_res", {"multiplier": 2}],
        RESIDUAL,
        ["compress_all_res", {"multiplier": 1}],
        RESIDUAL,
    ],
    "decoder_blocks": [
        RESIDUAL,
        ["compress_all", {"multiplier": 1}],
        RESIDUAL,
        *([["compress_all", {"multiplier": 2}], RESIDUAL] * 2),
    ],
}
AUDIO_VAE = {"z_channels": 1, "ch": AUDIO_CHANNELS, "ch_mult": [1, 1, 1], "num_res_blocks": 1}
GENERATOR = {"resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3]]}
VOCODER = GENERATOR | {
    "upsample_initial_channel": 128,
    "upsample_rates": [5, 4, 4, 2],
    "upsample_kernel_sizes": [11, 8, 8, 4],
}
BANDWIDTH = GENERATOR | {
    "upsample_initial_channel": 32,
    "upsample_rates": [6, 5, 4, 2],
    "upsample_kernel_sizes": [12, 11, 8, 4],
}
GEMMA = {"vocab_size": 384, "hidden_size": TEXT_WIDTH, "num_hidden_layers": 2}
UPSAMPLER = {"in_channels": LATENT_CHANNELS, "mid_channels": 64}


def sections() -> dict[str, Any]:
    """The three configurations as JSON: `ltx` (single file), `gemma`, `upsampler`."""
    data = copy.deepcopy(shipped("ltx-2.3-tiny"))
    ltx = data["ltx"]
    ltx["transformer"] |= TRANSFORMER
    ltx["vae"] |= VAE
    ltx["audio_vae"]["model"]["params"]["ddconfig"] |= AUDIO_VAE
    ltx["vocoder"]["vocoder"] |= VOCODER
    ltx["vocoder"]["bwe"] |= BANDWIDTH
    return {
        "ltx": ltx,
        "gemma": data["gemma"] | GEMMA,
        "upsampler": data["upsamplers"]["spatial_x2"] | UPSAMPLER,
    }


def model_config() -> ModelConfig:
    """The same, validated."""
    data = sections()
    return ModelConfig(
        LtxConfig.model_validate(data["ltx"]),
        GemmaConfig.model_validate(data["gemma"]),
        UpsamplerConfig.model_validate(data["upsampler"]),
    )
