"""The gated attention block of the transformer and of the text connectors."""

from __future__ import annotations

import jax
from jax import Array
from jax import numpy as jnp

from ltxbuild.model import layers, rope
from ltxbuild.model.layers import AttentionKind, Params
from ltxbuild.model.params import ParamTable, linear, vector


def table(key: str, *, heads: int, head_dim: int, query_dim: int, context_dim: int) -> ParamTable:
    """Parameters of one attention block, named from its root (`to_q.weight`, ...).

    Args:
        key: Checkpoint key of the block, without the trailing dot.
        heads: Attention heads.
        head_dim: Width of a head; `heads * head_dim` is the inner width.
        query_dim: Width of the tokens that ask, and of the result.
        context_dim: Width of the tokens that are asked.
    """
    inner = heads * head_dim
    return (
        *vector("q_norm.weight", f"{key}.q_norm.weight", inner, "heads"),
        *vector("k_norm.weight", f"{key}.k_norm.weight", inner, "heads"),
        *linear("to_q", f"{key}.to_q", inner, query_dim, ("heads", None)),
        *linear("to_k", f"{key}.to_k", inner, context_dim, ("heads", None)),
        *linear("to_v", f"{key}.to_v", inner, context_dim, ("heads", None)),
        *linear("to_gate_logits", f"{key}.to_gate_logits", heads, query_dim, ("heads", None)),
        *linear("to_out", f"{key}.to_out.0", query_dim, inner, (None, "heads")),
    )


def apply(
    params: Params,
    x: Array,
    context: Array | None = None,
    *,
    heads: int,
    eps: float = 1e-6,
    rope_q: rope.Tables | None = None,
    rope_k: rope.Tables | None = None,
    visible: Array | None = None,
    bypass: Array | None = None,
    kind: AttentionKind = "plain",
) -> Array:
    """Gated multi-head attention with full-width norms on queries and keys.

    Args:
        params: Tree of `table`.
        x: Tokens that ask, `[B, T, Dq]`; the gate reads them too.
        context: Tokens that are asked, `[B, S, Dc]`; `x` itself when None.
        heads: Attention heads.
        eps: Added to the mean square in the norms of queries and keys.
        rope_q: Rotation of the queries; None leaves them as they are.
        rope_k: Rotation of the keys; None leaves them as they are, except in self-attention (no `context`),
            where they turn with `rope_q`.
        visible: Which of the asked tokens count, `[S]` bool; None for all.
        bypass: Samples whose values go through as they are, unmixed, `[B]` bool; in self-attention only.
        kind: Implementation, see `layers.attention`.

    Returns:
        `[B, T, Dq]`.
    """
    if context is None:
        context, rope_k = x, rope_q
    q = _heads(layers.rms_norm(layers.linear(params["to_q"], x), params["q_norm"]["weight"], eps), heads)
    k = _heads(
        layers.rms_norm(layers.linear(params["to_k"], context), params["k_norm"]["weight"], eps), heads
    )
    v = _heads(layers.linear(params["to_v"], context), heads)
    if rope_q is not None:
        q = rope.rotate(q, rope_q)
    if rope_k is not None:
        k = rope.rotate(k, rope_k)
    mask = None if visible is None else visible[None, None, :]
    out = layers.attention(q, k, v, scale=q.shape[-1] ** -0.5, mask=mask, kind=kind)
    if bypass is not None:
        out = jnp.where(bypass[:, None, None, None], v, out)
    out = out * _gates(params, x)
    return layers.linear(params["to_out"], out.reshape(*x.shape[:2], -1))


def _heads(x: Array, heads: int) -> Array:
    return x.reshape(*x.shape[:2], heads, -1)


def _gates(params: Params, x: Array) -> Array:
    """One factor per head in (0, 2), `[B, T, heads, 1]`; zero logits leave a head as it is."""
    logits = layers.linear(params["to_gate_logits"], x)
    gates = jax.nn.sigmoid(logits.astype(jnp.float32)).astype(x.dtype) * 2
    return gates[..., None]
