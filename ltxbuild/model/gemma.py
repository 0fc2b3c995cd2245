"""The text encoder: a Gemma-3 tower whose hidden states become text features while they appear."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from ltxbuild.model import features
from ltxbuild.model.config import GemmaConfig, TransformerConfig
from ltxbuild.model.layers import AttentionKind, Params, attention, gelu_tanh, linear, rms_norm, run_layers
from ltxbuild.model.params import ParamSpec, ParamTable, prefixed, stack, vector
from ltxbuild.model.params import linear as linear_specs

TOWER = "language_model.model"

Rope = tuple[Array, Array]
"""Cos and sin, each `[S, head_dim / 2]`."""
Context = tuple[Rope, Array]
"""What a layer sees besides the tokens: RoPE tables and the attention mask `[B, S, S]`."""


def params(gemma: GemmaConfig, transformer: TransformerConfig) -> ParamTable:
    """Parameters of the tower (Gemma directory) and of the feature projection (single file)."""
    layers = stack(_layer_params(gemma, index) for index in range(gemma.num_hidden_layers))
    shape = (gemma.vocab_size, gemma.hidden_size)
    return (
        ParamSpec("embed_tokens", shape, ("vocab", None), (f"{TOWER}.embed_tokens.weight",)),
        *prefixed("blocks", layers),
        *vector("norm", f"{TOWER}.norm.weight", gemma.hidden_size),
        *prefixed("projection", features.params(gemma, transformer)),
    )


def _layer_params(gemma: GemmaConfig, index: int) -> ParamTable:
    hidden, inner = gemma.hidden_size, gemma.intermediate_size
    queries = gemma.num_attention_heads * gemma.head_dim
    keys = gemma.num_key_value_heads * gemma.head_dim
    key = f"{TOWER}.layers.{index}"

    def plain(name: str, module: str, out: int, into: int, *axes: str | None) -> ParamTable:
        return linear_specs(name, f"{key}.{module}_proj", out, into, axes, bias=False)

    return (
        *vector("before_attention", f"{key}.input_layernorm.weight", hidden),
        *plain("attention.q", "self_attn.q", queries, hidden, "heads", None),
        *plain("attention.k", "self_attn.k", keys, hidden, "heads", None),
        *plain("attention.v", "self_attn.v", keys, hidden, "heads", None),
        *plain("attention.out", "self_attn.o", hidden, queries, None, "heads"),
        *vector("attention.q_norm", f"{key}.self_attn.q_norm.weight", gemma.head_dim),
        *vector("attention.k_norm", f"{key}.self_attn.k_norm.weight", gemma.head_dim),
        *vector("after_attention", f"{key}.post_attention_layernorm.weight", hidden),
        *vector("before_mlp", f"{key}.pre_feedforward_layernorm.weight", hidden),
        *plain("mlp.gate", "mlp.gate", inner, hidden, "mlp", None),
        *plain("mlp.up", "mlp.up", inner, hidden, "mlp", None),
        *plain("mlp.down", "mlp.down", hidden, inner, None, "mlp"),
        *vector("after_mlp", f"{key}.post_feedforward_layernorm.weight", hidden),
    )


def encode(
    params: Params,
    tokens: Array,
    mask: Array,
    config: GemmaConfig,
    kind: AttentionKind = "plain",
    short: int = 0,
) -> tuple[Array, Array]:
    """Turn padded prompts into the features that the connectors read.

    Args:
        params: Tree of `params`; `blocks` may also be a sequence of per-layer trees.
        tokens: Token ids `[B, S]`, int32, below the vocabulary's size. Positions count pads as well.
        mask: `[B, S]`, True for real tokens.
        config: Config of the tower.
        kind: Implementation of the attention.
        short: Slots of a second way through the tower, for prompts that fit into them; 0 for none.

    Returns:
        Video features `[B, S, video_dim]` and audio features `[B, S, audio_dim]` in the weights' dtype; a pad
        has the projection's bias.
    """
    slots = tokens.shape[1]
    encode_last = partial(_encode_last, params, tokens, mask, config=config, kind=kind)
    if not 0 < short < slots:
        return encode_last(slots)
    fits = jnp.logical_not(jnp.any(mask[:, :-short]))
    both: tuple[Array, Array] = lax.cond(fits, lambda: encode_last(short), lambda: encode_last(slots))
    return both


def _encode_last(
    params: Params, tokens: Array, mask: Array, slots: int, *, config: GemmaConfig, kind: AttentionKind
) -> tuple[Array, Array]:
    """Features of all slots, from the last ones alone: nothing is seen of a pad, and its sums are zero."""
    pads = tokens.shape[1] - slots
    tokens, mask = tokens[:, pads:], mask[:, pads:]
    state = _embed(params["embed_tokens"], tokens, config)
    full, sliding = _contexts(mask, pads, config, state.dtype)
    projection = params["projection"]

    def body(carry: tuple[Array, features.Sums], item: Any) -> tuple[Array, features.Sums]:
        state, sums = carry
        layer, (index, is_full) = item
        # State i is what layer i reads, so that the loop over layers needs no state of its own.
        sums = features.add_state(projection, sums, state, index, mask)
        return _layer(layer, state, _select(is_full, full, sliding), config, kind), sums

    flags = (np.arange(config.num_hidden_layers, dtype=np.int32), np.asarray(config.is_full_attention))
    start = (state, features.start(projection, *tokens.shape))
    state, sums = run_layers(body, start, params["blocks"], flags)
    last = _norm(state, params["norm"], config)
    sums = features.add_state(projection, sums, last, config.num_hidden_layers, mask)
    sums = {name: jnp.pad(total, ((0, 0), (pads, 0), (0, 0))) for name, total in sums.items()}
    return features.finish(projection, sums, state.dtype)


def _embed(embeddings: Array, tokens: Array, config: GemmaConfig) -> Array:
    # The factor is rounded before it multiplies: 62.0 for a width of 3840 in bf16.
    scale = jnp.asarray(math.sqrt(config.hidden_size), embeddings.dtype)
    return embeddings.at[tokens].get(mode="promise_in_bounds") * scale


def _select(is_full: Array | np.bool_, full: Context, sliding: Context) -> Context:
    """The layer's context. Both kinds share one mask object where the window holds every prompt."""
    if isinstance(is_full, np.bool_):
        return full if is_full else sliding
    picked: Context = jax.tree.map(lambda f, s: f if f is s else jnp.where(is_full, f, s), full, sliding)
    return picked


def _layer(layer: Params, x: Array, context: Context, config: GemmaConfig, kind: AttentionKind) -> Array:
    attended = _attention(
        layer["attention"], _norm(x, layer["before_attention"], config), context, config, kind
    )
    x = x + _norm(attended, layer["after_attention"], config)
    fed = _mlp(layer["mlp"], _norm(x, layer["before_mlp"], config))
    return x + _norm(fed, layer["after_mlp"], config)


def _norm(x: Array, weight: Array, config: GemmaConfig) -> Array:
    return rms_norm(x, 1.0 + weight.astype(jnp.float32), config.rms_norm_eps)


def _mlp(mlp: Params, x: Array) -> Array:
    return linear(mlp["down"], gelu_tanh(linear(mlp["gate"], x)) * linear(mlp["up"], x))


def _attention(layer: Params, x: Array, context: Context, config: GemmaConfig, kind: AttentionKind) -> Array:
    rope, mask = context
    q, k, v = (linear(layer[name], x).reshape(*x.shape[:2], -1, config.head_dim) for name in "qkv")
    q = _rotate(_norm(q, layer["q_norm"], config), rope)
    k = _rotate(_norm(k, layer["k_norm"], config), rope)
    out = attention(q, k, v, scale=config.query_pre_attn_scalar**-0.5, mask=mask, kind=kind)
    return linear(layer["out"], out.reshape(*x.shape[:2], -1))


def _rotate(x: Array, rope: Rope) -> Array:
    """Rotate head halves `(a, b)` to `(a cos - b sin, b cos + a sin)`, each operation rounded."""
    cos, sin = (table[:, None] for table in rope)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _contexts(mask: Array, first: int, config: GemmaConfig, dtype: jnp.dtype) -> tuple[Context, Context]:
    """RoPE tables and masks of full and of sliding layers, for positions from `first` on."""
    length = mask.shape[1]
    order = jnp.arange(length)
    full_mask = mask[:, None, :] & (order[None, :] <= order[:, None])
    sliding_mask = full_mask
    if config.sliding_window < length:
        sliding_mask = full_mask & (order[None, :] > order[:, None] - config.sliding_window)
    factor = 1.0 if config.rope_scaling is None else config.rope_scaling.factor
    positions = np.arange(first, first + length)
    full_rope = _rope(positions, config.head_dim, config.rope_theta, factor, dtype)
    sliding_rope = _rope(positions, config.head_dim, config.rope_local_base_freq, 1.0, dtype)
    return (full_rope, full_mask), (sliding_rope, sliding_mask)


def _rope(positions: NDArray[np.int64], dim: int, base: float, factor: float, dtype: jnp.dtype) -> Rope:
    """Tables of the f32 angles `position * base^(-2 i / dim) / factor`."""
    powers = np.power(base, np.arange(0, dim, 2, dtype=np.float64) / dim).astype(np.float32)
    frequencies = np.float32(1) / powers / np.float32(factor)
    angles = (positions.astype(np.float32)[:, None] * frequencies).astype(np.float64)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return jnp.asarray(cos, dtype), jnp.asarray(sin, dtype)
