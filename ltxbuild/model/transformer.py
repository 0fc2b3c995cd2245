"""The audio-video diffusion transformer: from noisy tokens and text to velocities."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from ltxbuild.model import adaln, axes, block, layers
from ltxbuild.model.adaln import Timesteps
from ltxbuild.model.block import WHOLE, Perturbation
from ltxbuild.model.config import TransformerConfig
from ltxbuild.model.layers import AttentionKind, Params
from ltxbuild.model.params import ParamSpec, ParamTable, linear, prefixed, stack
from ltxbuild.model.positions import RopeTables

PREFIX = "model.diffusion_model"
VIDEO = "tokens"
"""Logical axis of the video tokens. Those of audio are few, and whole on every device."""


def params(config: TransformerConfig) -> ParamTable:
    """Parameters of the transformer without the text connectors; equal blocks are stacked under `blocks`."""
    video = _modality(
        prefix="",
        name="video",
        gate="a2v",
        dim=config.video_dim,
        channels=(config.in_channels, config.out_channels),
    )
    audio = _modality(
        prefix="audio_",
        name="audio",
        gate="v2a",
        dim=config.audio_dim,
        channels=(config.audio_in_channels, config.audio_out_channels),
    )
    blocks = stack(block.table(f"{PREFIX}.transformer_blocks.{i}", config) for i in range(config.num_layers))
    return (*prefixed("video", video), *prefixed("audio", audio), *prefixed("blocks", blocks))


def _modality(*, prefix: str, name: str, gate: str, dim: int, channels: tuple[int, int]) -> ParamTable:
    channels_in, channels_out = channels
    own = f"{PREFIX}.{prefix}"
    return (
        *linear("proj_in", f"{own}patchify_proj", dim, channels_in),
        *adaln.table("main", f"{own}adaln_single", dim, block.MAIN_ROWS),
        *adaln.table("prompt", f"{own}prompt_adaln_single", dim, block.PROMPT_ROWS),
        *adaln.table("cross", f"{PREFIX}.av_ca_{name}_scale_shift_adaln_single", dim, block.CROSS_ROWS - 1),
        *adaln.table("gate", f"{PREFIX}.av_ca_{gate}_gate_adaln_single", dim, 1),
        ParamSpec("head_rows", (2, dim), (None, None), (f"{own}scale_shift_table",)),
        *linear("proj_out", f"{own}proj_out", channels_out, dim),
    )


def velocity(
    params: Params,
    video: Array,
    audio: Array,
    context_video: Array,
    context_audio: Array,
    times_video: Timesteps,
    times_audio: Timesteps,
    ropes: RopeTables,
    *,
    config: TransformerConfig,
    kind: AttentionKind = "plain",
    visible: Array | None = None,
    without: Perturbation = WHOLE,
) -> tuple[Array, Array]:
    """Predict the velocity of every token, in one pass through the blocks.

    Noise levels may have a batch of 1 when all samples have the same.

    Args:
        params: Tree of `params`; `blocks` may also be a sequence of per-block trees.
        video: `[B, T, in_channels]`; its dtype is what is computed in.
        audio: `[B, A, audio_in_channels]`.
        context_video: Text for the video tokens, `[B, S, D]`.
        context_audio: Text for the audio tokens, `[B, S, Da]`.
        times_video: Noise levels of the video tokens.
        times_audio: Noise levels of the audio tokens.
        ropes: Rotary tables, `positions.rope_tables`.
        config: Sizes.
        kind: Implementation of the attention.
        visible: Which video tokens others may attend to, `[T]` bool; None for all.
        without: What samples go without.

    Returns:
        Velocities of video `[B, T, out_channels]` and audio `[B, A, audio_out_channels]`.
    """
    given_video, embedded_video = _conditions(
        params["video"], context_video, times_video, times_audio.sigma, visible, VIDEO, config
    )
    given_audio, embedded_audio = _conditions(
        params["audio"], context_audio, times_audio, times_video.sigma, None, None, config
    )
    bypass = without.video_self, without.audio_self

    def body(
        tokens: tuple[Array, Array], item: tuple[Params, tuple[Array | None, Array | None]]
    ) -> tuple[Array, Array]:
        layer, in_block = item
        return block.apply(
            layer,
            *tokens,
            given_video,
            given_audio,
            ropes,
            config=config,
            kind=kind,
            without=Perturbation(*in_block, without.isolated),
        )

    tokens = (
        axes.place(layers.linear(params["video"]["proj_in"], video), None, VIDEO, None),
        layers.linear(params["audio"]["proj_in"], audio),
    )
    video, audio = layers.run_layers(body, tokens, params["blocks"], extra=bypass)
    return (
        _head(params["video"], video, embedded_video, times_video.level, config.norm_eps),
        _head(params["audio"], audio, embedded_audio, times_audio.level, config.norm_eps),
    )


def _conditions(
    params: Params,
    context: Array,
    times: Timesteps,
    other_sigma: Array,
    visible: Array | None,
    along: str | None,
    config: TransformerConfig,
) -> tuple[block.Conditions, Array]:
    """Everything the blocks take from the step, and the embedding `[B, N, D]` that the head takes."""
    scale, dtype = config.timestep_scale_multiplier, context.dtype
    own_sigma = times.sigma[:, None] * scale
    # The gate alone looks at the other modality, through a multiplier of its own.
    gate_sigma = other_sigma[:, None] * scale * (config.av_ca_timestep_scale_multiplier / scale)
    main, embedded = adaln.apply(params["main"], times.values * scale, dtype)
    prompt, _ = adaln.apply(params["prompt"], own_sigma, dtype)
    cross, _ = adaln.apply(params["cross"], times.values * scale, dtype)
    gate, _ = adaln.apply(params["gate"], gate_sigma, dtype)
    return block.Conditions(context, main, prompt, cross, gate, times.level, visible, along), embedded


def _head(params: Params, x: Array, embedded: Array, level: Array | None, eps: float) -> Array:
    shift, scale = adaln.rows(params["head_rows"], embedded[:, :, None], level)
    return layers.linear(params["proj_out"], adaln.modulate(layers.layer_norm(x, eps), scale, shift))


def to_denoised(noisy: Array, velocity: Array, times: Timesteps) -> Array:
    """The clean tokens that a velocity points at, `[B, T, D]`: computed in f32, rounded once."""
    clean = noisy.astype(jnp.float32) - velocity.astype(jnp.float32) * times.per_token
    return clean.astype(noisy.dtype)
