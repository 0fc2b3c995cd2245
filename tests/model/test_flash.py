"""Flash attention: the TPU kernel's code, run step by step, against attention that holds its scores."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from ltxbuild.model import flash, layers
from ltxbuild.model.flash import Blocks

BLOCKS = Blocks(queries=128, keys=256, compute=128)


def _tokens(seed: int, *shape: int, dtype: str) -> Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


@pytest.mark.parametrize(
    ("tokens", "keys", "hidden", "dtype", "tolerance"),
    [
        (200, 300, 60, "float32", 2e-6),  # blocks that the lengths don't fill, and hidden keys
        (128, 256, 0, "bfloat16", 2**-8),  # whole blocks: no mask in the kernel
    ],
)
def test_the_tpu_kernel_gives_what_plain_attention_gives(
    tokens: int, keys: int, hidden: int, dtype: str, tolerance: float
) -> None:
    """Same weights, whatever the blocks; in bf16 up to one rounding of results below 1."""
    q, k, v = (_tokens(seed, 1, n, 2, 64, dtype=dtype) for seed, n in enumerate((tokens, keys, keys)))
    visible = jnp.arange(keys) < keys - hidden if hidden else None
    got = flash.on_tpu(q, k, v, visible, scale=0.125, blocks=BLOCKS, interpret=True)
    mask = None if visible is None else visible[None, None]
    want = layers.attention(q, k, v, scale=0.125, mask=mask)
    assert got.dtype == q.dtype
    np.testing.assert_allclose(np.asarray(got, np.float32), np.asarray(want, np.float32), atol=tolerance)


@pytest.mark.parametrize(
    ("tokens", "keys", "fitting"),
    [
        (24576, 24576, Blocks(1024, 1024, 512)),
        (24576, 126, Blocks(1024, 128, 128)),
        (126, 24576, Blocks(128, 1024, 512)),
        (700, 640, Blocks(768, 640, 128)),
    ],
)
def test_blocks_are_no_longer_than_the_sequences(tokens: int, keys: int, fitting: Blocks) -> None:
    """Short sequences take short blocks, in whole registers, and whole parts of a fetch."""
    assert flash._fitting(Blocks(1024, 1024, 512), tokens, keys) == fitting


def test_few_scores_need_no_kernel() -> None:
    """Attention among audio tokens is plain whatever the program's kind: no kernel could run on this CPU."""
    q = _tokens(0, 1, 126, 2, 64, dtype="bfloat16")
    got = layers.attention(q, q, q, scale=0.125, kind=Blocks(1024, 1024, 512))
    np.testing.assert_array_equal(got, layers.attention(q, q, q, scale=0.125))
