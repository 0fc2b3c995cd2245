"""Attention that never holds its scores: kernels of the platforms, which go through the keys block by block.

Both take what `layers.attention` takes, with one mask for all queries, under which at least one key is
visible. In a program that is split over devices they run inside `axes.on_each_device`: no compiler can split
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

T = TypeVar("T")

LANES = 128
"""Tokens come in multiples of the width of a TPU's vector register."""


class Blocks(NamedTuple):
    """How the TPU kernel cuts its work; tokens per block, multiples of 128.

    Attributes:
        queries: That are held while all keys go by.
        keys: That are fetched at once, with their values.
        compute: Keys of which scores are held at once; divides `keys`.
    """

    queries: int
    keys: int
    compute: int


def on_tpu(
    q: Array,
    k: Array,
    v: Array,
    visible: Array | None,
    *,
    scale: float,
    blocks: Blocks,
    interpret: bool = False,
) -> Array:
    """JAX's splash attention kernel.

    The kernel knows no scale: queries are scaled before, in f32 with one more rounding.

    Args:
        q: `[B, T, H, D]`.
        k: `[B, S, H, D]`.
        v: `[B, S, H, D]`.
        visible: Which keys count, `[S]` bool; None for all.
        scale: Factor on the scores.
        blocks: Sizes of blocks; shorter sequences take shorter ones.
        interpret: Run the kernel's code step by step on any platform.

    Returns:
        `[B, T, H, D]` in the dtype of `q`.
    """
    # Imported where it is used: half a second that no other target pays.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    tokens, keys, heads = q.shape[1], k.shape[1], q.shape[2]
    sizes = _fitting(blocks, tokens, keys)
    scaled = (q.astype(jnp.float32) * scale).astype(q.dtype)
    queries = _padded(scaled, sizes.queries)
    k, v = _padded(k, sizes.keys), _padded(v, sizes.keys)
    lengths = queries.shape[1], k.shape[1]
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([masks.FullMask(lengths) for _ in range(heads)]),
        block_sizes=splash.BlockSizes(sizes.queries, sizes.keys, sizes.compute),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    segments = _segments(splash.SegmentIds, lengths, keys, visible)
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (queries, k, v))
    out: Array = jax.vmap(lambda q, k, v: kernel(q, k, v, segment_ids=segments))(q, k, v)
    return jnp.swapaxes(out, 1, 2)[:, :tokens]


def _fitting(blocks: Blocks, tokens: int, keys: int) -> Blocks:
    """Blocks no longer than the sequences."""
    fetched = min(blocks.keys, _up(keys, LANES))
    compute = blocks.compute if fetched % blocks.compute == 0 else LANES
    return Blocks(min(blocks.queries, _up(tokens, LANES)), fetched, compute)


def _up(length: int, unit: int) -> int:
    return -(-length // unit) * unit


def _padded(x: Array, unit: int) -> Array:
    """Zeros behind the tokens `[B, T, H, D]`, up to a multiple."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % unit), (0, 0), (0, 0)))


def _segments(kind: Callable[..., T], lengths: tuple[int, int], keys: int, visible: Array | None) -> T | None:
    """Segment 1 for all queries and for the keys that count; None where all do."""
    if visible is None and keys == lengths[1]:
        return None
    counts = jnp.ones(keys, jnp.bool_) if visible is None else visible
    of_keys = jnp.pad(counts, (0, lengths[1] - keys)).astype(jnp.int32)
    return kind(q=jnp.ones(lengths[0], jnp.int32), kv=of_keys)


def on_cuda(q: Array, k: Array, v: Array, visible: Array | None, *, scale: float) -> Array:
    """CuDNN's fused attention, for 16-bit types.

    Args:
        q: `[B, T, H, D]`.
        k: `[B, S, H, D]`.
        v: `[B, S, H, D]`.
        visible: Which keys count, `[S]` bool, those that do before those that don't; None for all. A mask of
            another form would be as large as the scores.
        scale: Factor on the scores.

    Returns:
        `[B, T, H, D]` in the dtype of `q`.
    """
    batch, tokens = q.shape[:2]
    count = None
    if visible is not None:
        count = jnp.broadcast_to(jnp.sum(visible, dtype=jnp.int32), (batch,))
    return jax.nn.dot_product_attention(
        q,
        k,
        v,
        scale=scale,
        query_seq_lengths=None if count is None else jnp.full((batch,), tokens, jnp.int32),
        key_value_seq_lengths=count,
        implementation="cudnn",
    )
