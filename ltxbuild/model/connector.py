"""The text connectors: they compact a prompt, fill the free slots with registers and mix all slots.

There is one for video and one for audio; they differ in width only.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from ltxbuild.model import attention, rope
from ltxbuild.model.config import TransformerConfig
from ltxbuild.model.layers import AttentionKind, Params, feed_forward, rms_norm, run_layers
from ltxbuild.model.params import ParamSpec, ParamTable, linear, prefixed, stack

PREFIX = "model.diffusion_model"
THETA = 10000.0
"""RoPE base. The checkpoint's `positional_embedding_theta` is the transformer's; connectors never read it."""
NORM_EPS = 1e-6


def params(config: TransformerConfig) -> ParamTable:
    """Parameters of both connectors, under `video` and `audio`."""
    return (
        *_connector_params(
            "video",
            config,
            config.connector_num_layers,
            config.connector_num_attention_heads,
            config.connector_attention_head_dim,
        ),
        *_connector_params(
            "audio",
            config,
            config.audio_connector_num_layers,
            config.audio_connector_num_attention_heads,
            config.audio_connector_attention_head_dim,
        ),
    )


def _connector_params(
    modality: str, config: TransformerConfig, layers: int, heads: int, head_dim: int
) -> ParamTable:
    key = f"{PREFIX}.{modality}_embeddings_connector"
    shape = (config.connector_num_learnable_registers, heads * head_dim)
    blocks = stack(_block_params(f"{key}.transformer_1d_blocks.{i}", heads, head_dim) for i in range(layers))
    return (
        ParamSpec(f"{modality}.registers", shape, (None, None), (f"{key}.learnable_registers",)),
        *prefixed(f"{modality}.blocks", blocks),
    )


def _block_params(key: str, heads: int, head_dim: int) -> ParamTable:
    dim = heads * head_dim
    attn = attention.table(f"{key}.attn1", heads=heads, head_dim=head_dim, query_dim=dim, context_dim=dim)
    return (
        *prefixed("attn", attn),
        *linear("ff.up", f"{key}.ff.net.0.proj", 4 * dim, dim, ("mlp", None)),
        *linear("ff.down", f"{key}.ff.net.2", dim, 4 * dim, (None, "mlp")),
    )


def connect(
    params: Params,
    features_video: Array,
    features_audio: Array,
    mask: Array,
    config: TransformerConfig,
    kind: AttentionKind = "plain",
) -> tuple[Array, Array]:
    """Turn text features into what the transformer attends to; every slot counts, no mask is left.

    Args:
        params: Tree of `params`; each `blocks` may also be a sequence of per-block trees.
        features_video: `[B, S, video_dim]`, S a multiple of the number of registers.
        features_audio: `[B, S, audio_dim]`.
        mask: `[B, S]`, True for real tokens, at any place.
        config: Sizes.
        kind: Implementation of the attention.

    Returns:
        Video context `[B, S, video_dim]` and audio context `[B, S, audio_dim]`.

    Raises:
        ValueError: S is no multiple of the number of registers.
    """
    order = valid_first(mask)
    max_position = config.connector_positional_embedding_max_pos[0]

    def run(modality: str, features: Array, heads: int) -> Array:
        tree = params[modality]
        slots = _fill(_compact(features, order), mask, tree["registers"])
        return _mix(tree["blocks"], slots, heads, max_position, kind)

    return (
        run("video", features_video, config.connector_num_attention_heads),
        run("audio", features_audio, config.audio_connector_num_attention_heads),
    )


def valid_first(mask: Array) -> Array:
    """Where each slot gets its token from: real tokens first, in their order.

    Two rounds of counted comparisons do what a stable sort would, for any mask. Their `S * S` booleans are
    never stored, and sort, scatter and windowed sums are what accelerator compilers refuse or run slowly.

    Args:
        mask: `[B, S]`, True for real tokens.

    Returns:
        `[B, S]`, int32: the place of the p-th real token, or S - 1 where there is none left.
    """
    length = mask.shape[1]
    order = jnp.arange(length, dtype=jnp.int32)
    until = mask[:, None, :] & (order[None, :] <= order[:, None])
    seen = jnp.sum(until, axis=-1, dtype=jnp.int32)
    before = seen[:, None, :] <= order[:, None]
    return jnp.minimum(jnp.sum(before, axis=-1, dtype=jnp.int32), length - 1)


def _compact(features: Array, order: Array) -> Array:
    return jnp.take_along_axis(features, order[..., None], axis=1, mode="promise_in_bounds")


def _fill(tokens: Array, mask: Array, registers: Array) -> Array:
    """Replace each slot p behind the last real token by register `p mod registers`."""
    length, count = tokens.shape[1], registers.shape[0]
    if length % count:
        raise ValueError(f"{length} text slots are no multiple of the {count} registers")
    valid = jnp.sum(mask, axis=-1, dtype=jnp.int32)[:, None, None]
    free = jnp.arange(length, dtype=jnp.int32)[:, None] >= valid
    return jnp.where(free, jnp.tile(registers, (length // count, 1)), tokens)


def _mix(blocks: Params, x: Array, heads: int, max_position: int, kind: AttentionKind) -> Array:
    length, dim = x.shape[1:]
    frequencies = rope.frequencies(dim, 1, THETA)
    angles = rope.axis_angles(np.arange(length, dtype=np.float32), max_position, frequencies)
    tables = rope.tables([angles], dim, heads, x.dtype)

    def body(x: Array, block: Params) -> Array:
        normed = rms_norm(x, eps=NORM_EPS)
        x = x + attention.apply(block["attn"], normed, heads=heads, eps=NORM_EPS, rope_q=tables, kind=kind)
        return x + feed_forward(block["ff"], rms_norm(x, eps=NORM_EPS))

    return rms_norm(run_layers(body, x, blocks), eps=NORM_EPS)
