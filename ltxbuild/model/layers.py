"""Layers shared by several components: linear, norms, attention, feed-forward and the layer loop.

Every function computes in the dtype of its input and rounds where the official code rounds: after each
elementwise operation, with normalisations and softmax in f32 inside and one cast at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from ltxbuild.model import flash
from ltxbuild.model.flash import Blocks
from ltxbuild.model.forms import BLOCK_QUERIES
from ltxbuild.model.loops import apart, bits, collect, floats

Params = Mapping[str, Any]
Carry = TypeVar("Carry")
AttentionKind = Literal["plain", "blocked", "cudnn"] | Blocks

FLOOR = -1e38
"""Below every score, and finite: accelerators differ in what they make of infinities."""
FEW_SCORES = 1 << 20
"""Scores per head below which no kernel is worth its start: 126 audio tokens and 1024 of text."""


def linear(params: Params, x: Array) -> Array:
    """`x [..., in]` times `weight [out, in]` transposed, plus `bias [out]` where there is one.

    Accumulates in f32 and rounds once, as a fused matmul-with-bias does. The rows of all samples are one
    matrix, and a single row is doubled: XLA:CPU multiplies a matrix with bf16 weights as they lie, but for
    any other shape it first makes a transposed or an f32 copy of the weight, of all layers at once. A weight
    whose rows have zeros behind them (`params.padded`) meets tokens that have as many.
    """
    weight, rows = params["weight"], x.reshape(-1, x.shape[-1])
    single, padding = len(rows) == 1, weight.shape[1] - rows.shape[1]
    rows = _padded(rows, padding) if padding else rows
    y = lax.dot_general(
        jnp.concatenate([rows, rows]) if single else rows,
        weight,
        (((1,), (1,)), ((), ())),
        preferred_element_type=jnp.float32,
    )
    y = (y[:1] if single else y).reshape(*x.shape[:-1], -1)
    if "bias" in params:
        y = y + params["bias"].astype(jnp.float32)
    return y.astype(x.dtype)


def _padded(rows: Array, padding: int) -> Array:
    """Rows with zeros behind them: as bits and apart, since it would slow down what it is fused with."""
    return floats(apart(partial(jnp.pad, pad_width=((0, 0), (0, padding))), bits(rows)))


def rms_norm(x: Array, weight: Array | None = None, eps: float = 1e-6) -> Array:
    """Root-mean-square norm over the last axis; f32 inside, one cast at the end."""
    x32 = x.astype(jnp.float32)
    y = x32 * lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    if weight is not None:
        y = y * weight.astype(jnp.float32)
    return y.astype(x.dtype)


def layer_norm(x: Array, eps: float = 1e-6) -> Array:
    """Layer norm without weights over the last axis; f32 inside, one cast at the end."""
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    return (centred * lax.rsqrt(variance + eps)).astype(x.dtype)


def pixel_norm(x: Array, eps: float) -> Array:
    """`x / sqrt(mean(x^2) + eps)` over the last axis, the channels of a VAE.

    A chain of elementwise operations in the official code, so each one rounds; only the mean accumulates
    in f32.
    """
    # XLA:CPU takes a reduction and the casts before it into one fusion that ignores the rounding of a cast.
    info = jnp.finfo(x.dtype)  # type: ignore[no-untyped-call]
    square = lax.reduce_precision(jnp.square(x.astype(jnp.float32)), info.nexp, info.nmant)
    mean = jnp.mean(square, axis=-1, keepdims=True).astype(x.dtype)
    return x / jnp.sqrt(mean + jnp.asarray(eps, x.dtype))


def gelu_tanh(x: Array) -> Array:
    """GELU, tanh approximation; f32 inside, one cast at the end."""
    return jax.nn.gelu(x.astype(jnp.float32), approximate=True).astype(x.dtype)


def silu(x: Array) -> Array:
    """`x * sigmoid(x)`; f32 inside, one cast at the end."""
    return jax.nn.silu(x.astype(jnp.float32)).astype(x.dtype)


def attention(
    q: Array, k: Array, v: Array, *, scale: float, mask: Array | None = None, kind: AttentionKind = "plain"
) -> Array:
    """Scaled dot-product attention.

    Args:
        q: `[B, T, H, D]`.
        k: `[B, S, K, D]`, with H a multiple of K (grouped queries).
        v: `[B, S, K, D]`.
        scale: Factor on the scores, above zero.
        mask: Boolean `[B or 1, T or 1, S]`, True where a key may be seen. Rows that see nothing give zeros.
        kind: `plain` holds all scores `[B, H, T, S]`; `blocked` goes through the queries in blocks; `cudnn`
            and `Blocks` never hold them, see `flash`: for a mask `[1, 1, S]` only.

    Returns:
        `[B, T, H, D]` in the dtype of `q`.
    """
    if k.shape[2] != q.shape[2]:
        repeats = q.shape[2] // k.shape[2]
        k, v = jnp.repeat(k, repeats, axis=2), jnp.repeat(v, repeats, axis=2)
    if isinstance(kind, Blocks) or kind == "cudnn":
        return _attend_flash(q, k, v, mask, scale, kind)
    if kind == "plain" or q.shape[1] <= BLOCK_QUERIES:
        return _attend(q, k, v, mask, scale)
    return _attend_blocked(q, k, v, mask, scale)


def _attend_flash(
    q: Array, k: Array, v: Array, mask: Array | None, scale: float, kind: Blocks | Literal["cudnn"]
) -> Array:
    if q.shape[1] * k.shape[1] < FEW_SCORES:
        return _attend(q, k, v, mask, scale)
    visible = None if mask is None else mask.reshape(k.shape[1])
    if isinstance(kind, Blocks):
        return flash.on_tpu(q, k, v, visible, scale=scale, blocks=kind)
    return flash.on_cuda(q, k, v, visible, scale=scale)


def _attend(
    q: Array, k: Array, v: Array, mask: Array | None, scale: float, *, by_head: bool = False
) -> Array:
    """Attend with all scores at once; `by_head` if arrays are `[B, H, T, D]` instead of `[B, T, H, D]`."""
    asking, asked = ("bhtd", "bhsd") if by_head else ("bthd", "bshd")
    scores = jnp.einsum(f"{asking},{asked}->bhts", q, k, preferred_element_type=jnp.float32)
    if mask is not None:
        scores = jnp.where(mask[:, None], scores, -jnp.inf)
    # Where nothing is seen, weights are exp(-inf - FLOOR) = 0, divided by 1; else the peak alone adds 1.
    # The scale, above zero, is multiplied in twice: scaled scores would be written out for both readers.
    peak = jnp.maximum(jnp.max(scores, axis=-1, keepdims=True) * scale, FLOOR)
    weights = jnp.exp(scores * scale - peak)
    sums = jnp.sum(weights, axis=-1)[..., None]
    total = sums if by_head else jnp.swapaxes(sums, 1, 2)
    weighted = weights.astype(v.dtype)
    out = jnp.einsum(f"bhts,{asked}->{asking}", weighted, v, preferred_element_type=jnp.float32)
    # Divided after the product, as flash attention does: [T, D] divisions and not [T, S], and less rounding.
    return (out / jnp.maximum(total, 1.0)).astype(q.dtype)


def _attend_blocked(q: Array, k: Array, v: Array, mask: Array | None, scale: float) -> Array:
    """Attend block by block, in the order that products need: else each block's weights are turned round."""
    batch, tokens, heads, dim = q.shape
    blocks = -(-tokens // BLOCK_QUERIES)
    short = blocks * BLOCK_QUERIES - tokens
    padded = jnp.pad(q, ((0, 0), (0, short), (0, 0), (0, 0)))
    parts = padded.reshape(batch, blocks, BLOCK_QUERIES, heads, dim)
    queries, keys, values = bits(parts.transpose(1, 0, 3, 2, 4)), jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)

    def attend(queries: Array, mask: Array | None) -> Array:
        return _attend(floats(queries), keys, values, mask, scale, by_head=True)

    if mask is None or mask.shape[1] == 1:
        out = collect(lambda block: attend(block, mask), queries)
    else:
        rows = jnp.pad(mask, ((0, 0), (0, short), (0, 0)))
        masks = jnp.moveaxis(rows.reshape(rows.shape[0], blocks, BLOCK_QUERIES, -1), 1, 0)
        out = collect(lambda pair: attend(*pair), (queries, masks))
    return out.transpose(1, 0, 3, 2, 4).reshape(batch, blocks * BLOCK_QUERIES, heads, dim)[:, :tokens]


def feed_forward(params: Params, x: Array) -> Array:
    """`down(gelu_tanh(up(x)))` with biases."""
    return linear(params["down"], gelu_tanh(linear(params["up"], x)))


def run_layers(
    body: Callable[[Carry, Any], Carry], carry: Carry, layers: Params | Sequence[Params], extra: Any = None
) -> Carry:
    """Apply `body(carry, layer)` for each layer in turn.

    Args:
        body: One layer; `layer` is its parameter tree, or `(tree, slice of extra)` when `extra` is given.
        carry: What flows through the layers.
        layers: A tree with a leading `layers` axis (scanned), bf16 perhaps as bits; or a sequence of trees
            (written out).
        extra: Per-layer inputs with the same leading axis.
    """
    if isinstance(layers, Sequence):
        for index, layer in enumerate(layers):
            item = layer if extra is None else (layer, jax.tree.map(lambda leaf, i=index: leaf[i], extra))
            carry = body(carry, item)
        return carry
    xs = layers if extra is None else (layers, extra)
    return lax.scan(lambda c, x: (body(c, jax.tree.map(floats, x)), None), carry, xs)[0]
