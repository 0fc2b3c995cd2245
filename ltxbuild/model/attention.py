"""The gated attention block of the transformer and of the text connectors."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from ltxbuild.model import axes, layers, rope
from ltxbuild.model.layers import AttentionKind, Params
from ltxbuild.model.params import EMBED, ParamTable, linear, vector


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
        *linear("to_q", f"{key}.to_q", inner, query_dim, ("heads", EMBED)),
        *linear("to_k", f"{key}.to_k", inner, context_dim, ("heads", EMBED)),
        *linear("to_v", f"{key}.to_v", inner, context_dim, ("heads", EMBED)),
        *linear("to_gate_logits", f"{key}.to_gate_logits", heads, query_dim, ("heads", EMBED)),
        *linear("to_out", f"{key}.to_out.0", query_dim, inner, (EMBED, "heads")),
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
    along_q: str | None = None,
    along_k: str | None = None,
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
        along_q: Logical axis of the tokens that ask, see `axes`.
        along_k: Logical axis of the tokens that are asked; that of `x` in self-attention.

    Returns:
        `[B, T, Dq]`.
    """
    if context is None:
        context, rope_k, along_k = x, rope_q, along_q
    q, k, v = (
        layers.linear(params[name], source)
        for name, source in (("to_q", x), ("to_k", context), ("to_v", context))
    )
    mix = partial(_mix, head_dim=q.shape[-1] // heads, width=q.shape[-1], eps=eps, kind=kind, along_k=along_k)
    asking, asked = (None, along_q, "heads"), (None, along_k, "heads")
    turning_q, turning_k = (along_q, "heads", None), (along_k, "heads", None)
    split = axes.on_each_device(
        mix,
        (asking, asked, asked, asking, ("heads",), ("heads",), turning_q, turning_k, (None,), (None,)),
        asking,
    )
    weights = params["q_norm"]["weight"], params["k_norm"]["weight"]
    out = split(q, k, v, _gates(params, x), *weights, rope_q, rope_k, visible, bypass)
    return layers.linear(params["to_out"], out)


def _mix(
    q: Array,
    k: Array,
    v: Array,
    gates: Array,
    weight_q: Array,
    weight_k: Array,
    rope_q: rope.Tables | None,
    rope_k: rope.Tables | None,
    visible: Array | None,
    bypass: Array | None,
    *,
    head_dim: int,
    width: int,
    eps: float,
    kind: AttentionKind,
    along_k: str | None,
) -> Array:
    """From projections to what `to_out` takes, for some heads and some of the tokens that ask."""
    squares = (jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1) for x in (q, k))
    mean_q, mean_k = (square[..., None] / width for square in axes.total([*squares], "heads"))
    q, k = _scaled(q, mean_q, weight_q, eps), _scaled(k, mean_k, weight_k, eps)
    q, k, v = (x.reshape(*x.shape[:2], -1, head_dim) for x in (q, k, v))
    if rope_q is not None:
        q = rope.rotate(q, rope_q)
    if rope_k is not None:
        k = rope.rotate(k, rope_k)
    mask = None if visible is None else visible[None, None, :]
    everything = axes.whole(k, along_k, 1), axes.whole(v, along_k, 1)
    out = layers.attention(q, *everything, scale=head_dim**-0.5, mask=mask, kind=kind)
    if bypass is not None:
        out = jnp.where(bypass[:, None, None, None], v, out)
    return (out * gates[..., None]).reshape(*out.shape[:2], -1)


def _scaled(x: Array, mean_square: Array, weight: Array, eps: float) -> Array:
    """The rest of `layers.rms_norm`, from the mean square on."""
    y = x.astype(jnp.float32) * lax.rsqrt(mean_square + eps) * weight.astype(jnp.float32)
    return y.astype(x.dtype)


def _gates(params: Params, x: Array) -> Array:
    """One factor per head in (0, 2), `[B, T, heads]`; zero logits leave a head as it is."""
    logits = layers.linear(params["to_gate_logits"], x)
    return jax.nn.sigmoid(logits.astype(jnp.float32)).astype(x.dtype) * 2
