"""The official modules as test oracles, and a checkpoint configuration small enough to run them on a CPU."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from typing import Any

import torch


def import_oracles() -> None:
    """Make `ltx_core` importable.

    `transformers` looks for torchaudio while it is imported, so its model class must be loaded before the
    stub is put in place. Only the audio encoder, which nothing here runs, would use torchaudio.
    """
    from transformers import PreTrainedModel  # noqa: F401

    for name in ("torchaudio", "torchaudio.transforms", "torchaudio.functional"):
        if name not in sys.modules:
            stub = types.ModuleType(name)
            stub.__spec__ = importlib.machinery.ModuleSpec(name, None)
            sys.modules[name] = stub
    torchaudio: Any = sys.modules["torchaudio"]
    torchaudio.transforms = sys.modules["torchaudio.transforms"]
    torchaudio.functional = sys.modules["torchaudio.functional"]


def randomize(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Fill every weight and every buffer that a checkpoint stores, so that signals neither die nor explode.

    Filters of the vocoder's resamplers keep their values: they are computed, not learned.
    """
    generator = torch.Generator().manual_seed(seed)
    state = module.state_dict()
    for name in sorted(state):
        if not name.endswith(".filter"):
            state[name].copy_(_random(name, state[name], generator))
    return module.eval().requires_grad_(False)


def _random(name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
    last = name.rsplit(".", 1)[-1]
    if "scale_shift_table" in last:
        return noise * 0.3
    if last == "learnable_registers":
        return noise
    if last == "mel_basis":
        return noise.abs() / tensor.shape[-1]
    if name.endswith("conv_post.weight"):
        # Keeps most of the waveform inside the vocoder's clamp, where a difference shows.
        return noise * 0.05 / tensor[0].numel() ** 0.5
    if tensor.ndim > 1:
        return noise / max(1, tensor[0].numel()) ** 0.5
    is_scale = last == "std-of-means" or (last == "weight" and "norm" in name)
    return 1 + 0.2 * noise.clamp(-3, 3) if is_scale else noise * 0.1


def tiny_config() -> dict[str, Any]:
    """The `config` metadata of a single-file checkpoint, with every size made tiny.

    Whatever the official pipelines fix stays as it is: 128 latent channels, audio latents of 8 x 16,
    64 mel bins.
    """
    return {
        "transformer": _tiny_transformer(),
        "vae": _tiny_vae(),
        "audio_vae": _tiny_audio_vae(),
        "vocoder": _tiny_vocoder(),
        "scheduler": {"_class_name": "RectifiedFlowScheduler", "sampler": "LinearQuadratic"},
    }


def _tiny_transformer() -> dict[str, Any]:
    return {
        "_class_name": "AVTransformer3DModel",
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 128,
        "out_channels": 128,
        "cross_attention_dim": 32,
        "caption_channels": 24,
        "audio_num_attention_heads": 2,
        "audio_attention_head_dim": 8,
        "audio_out_channels": 128,
        "audio_cross_attention_dim": 16,
        "positional_embedding_type": "rope",
        "positional_embedding_theta": 10000.0,
        "positional_embedding_max_pos": [20, 2048, 2048],
        "audio_positional_embedding_max_pos": [20],
        "rope_type": "split",
        "frequencies_precision": "float64",
        "use_middle_indices_grid": True,
        "causal_temporal_positioning": True,
        "timestep_scale_multiplier": 1000,
        "av_ca_timestep_scale_multiplier": 1000.0,
        "norm_eps": 1e-6,
        "norm_elementwise_affine": False,
        "qk_norm": "rms_norm",
        "standardization_norm": "rms_norm",
        "apply_gated_attention": True,
        "cross_attention_adaln": True,
        "av_cross_ada_norm": True,
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "use_embeddings_connector": True,
        "connector_num_layers": 2,
        "connector_num_attention_heads": 2,
        "connector_attention_head_dim": 16,
        "connector_positional_embedding_max_pos": [4096],
        "connector_num_learnable_registers": 128,
        "connector_norm_output": True,
        "connector_apply_gated_attention": True,
        "connector_learnable_registers_std": 1,
        "audio_connector_num_attention_heads": 2,
        "audio_connector_attention_head_dim": 8,
        "caption_proj_before_connector": True,
        "caption_projection_first_linear": False,
        "caption_projection_second_linear": False,
        "caption_proj_input_norm": False,
        "text_encoder_norm_type": "per_token_rms",
        "dropout": 0.0,
        "num_embeds_ada_norm": 1000,
        "num_vector_embeds": None,
        "only_cross_attention": False,
        "double_self_attention": False,
        "upcast_attention": False,
        "use_linear_projection": False,
        "share_ff": False,
        "cross_attention_norm": True,
        "use_audio_video_cross_attention": True,
        "norm_num_groups": 32,
    }


def _tiny_vae() -> dict[str, Any]:
    return {
        "_class_name": "CausalVideoAutoencoder",
        "dims": 3,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 128,
        "patch_size": 4,
        "norm_layer": "pixel_norm",
        "latent_log_var": "uniform",
        "causal_decoder": False,
        "timestep_conditioning": False,
        "spatial_padding_mode": "zeros",
        "encoder_base_channels": 128,
        "decoder_base_channels": 8,
        "use_quant_conv": False,
        "normalize_latent_channels": False,
        "scaling_factor": 1.0,
        "encoder_blocks": [
            ["res_x", {"num_layers": 1}],
            ["compress_space_res", {"multiplier": 1}],
            ["res_x", {"num_layers": 1}],
            ["compress_time_res", {"multiplier": 1}],
            ["res_x", {"num_layers": 1}],
            ["compress_all_res", {"multiplier": 1}],
            ["res_x", {"num_layers": 1}],
            ["compress_all_res", {"multiplier": 1}],
            ["res_x", {"num_layers": 1}],
        ],
        "decoder_blocks": [
            ["res_x", {"num_layers": 2}],
            ["compress_space", {"multiplier": 2}],
            ["res_x", {"num_layers": 1}],
            ["compress_time", {"multiplier": 2}],
            ["res_x", {"num_layers": 1}],
            ["compress_all", {"multiplier": 1}],
            ["res_x", {"num_layers": 1}],
            ["compress_all", {"multiplier": 2}],
            ["res_x", {"num_layers": 1}],
        ],
    }


def _tiny_audio_vae() -> dict[str, Any]:
    ddconfig = {
        "double_z": True,
        "mel_bins": 64,
        "z_channels": 8,
        "resolution": 256,
        "downsample_time": False,
        "in_channels": 2,
        "out_ch": 2,
        "ch": 128,
        "ch_mult": [1, 1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
        "mid_block_add_attention": False,
        "norm_type": "pixel",
        "causality_axis": "height",
    }
    return {
        "model": {"params": {"ddconfig": ddconfig, "sampling_rate": 16000}},
        "preprocessing": {
            "audio": {
                "sampling_rate": 16000,
                "max_wav_value": 32768.0,
                "duration": 5.12,
                "stereo": True,
                "causal_padding": 3,
            },
            "stft": {"filter_length": 1024, "hop_length": 160, "win_length": 1024, "causal": True},
            "mel": {"n_mel_channels": 64, "mel_fmin": 0, "mel_fmax": 8000},
        },
    }


def _tiny_vocoder() -> dict[str, Any]:
    resblocks = {
        "resblock": "AMP1",
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
        "stereo": True,
        "activation": "snakebeta",
        "use_tanh_at_final": False,
        "use_bias_at_final": False,
    }
    return {
        "vocoder": {
            **resblocks,
            "upsample_initial_channel": 64,
            "upsample_rates": [5, 2, 2, 2, 2, 2],
            "upsample_kernel_sizes": [11, 4, 4, 4, 4, 4],
        },
        "bwe": {
            **resblocks,
            "upsample_initial_channel": 32,
            "upsample_rates": [6, 5, 2, 2, 2],
            "upsample_kernel_sizes": [12, 11, 4, 4, 4],
            "apply_final_activation": False,
            "input_sampling_rate": 16000,
            "output_sampling_rate": 48000,
            "hop_length": 80,
            "n_fft": 512,
            "win_size": 512,
            "num_mels": 64,
        },
    }
