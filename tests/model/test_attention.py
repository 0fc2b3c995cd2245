"""The gated attention block against the official module."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from loading import AGREES, key_diff, load, prefixed_state
from oracles import import_oracles, randomize

from ltxbuild.model import attention, rope

import_oracles()
from ltx_core.model.transformer.attention import Attention  # noqa: E402
from ltx_core.model.transformer.rope import LTXRopeType  # noqa: E402

HEADS, HEAD_DIM, QUERY, CONTEXT, TOKENS, KEYS = 2, 8, 24, 12, 5, 7
KEY = "blocks.0.attn"


def _official(context_dim: int | None) -> torch.nn.Module:
    return randomize(
        Attention(
            QUERY, context_dim, HEADS, HEAD_DIM, rope_type=LTXRopeType.SPLIT, apply_gated_attention=True
        )
    )


def _table(context_dim: int) -> attention.ParamTable:
    return attention.table(KEY, heads=HEADS, head_dim=HEAD_DIM, query_dim=QUERY, context_dim=context_dim)


def _inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return (
        rng.standard_normal((2, TOKENS, QUERY), np.float32),
        rng.standard_normal((2, KEYS, CONTEXT), np.float32),
    )


def _tables(count: int) -> rope.Tables:
    freqs = rope.frequencies(HEADS * HEAD_DIM, 1, 10000.0)
    angles = rope.axis_angles(np.arange(count, dtype=np.float32), 20.0, freqs)
    return rope.tables([angles], HEADS * HEAD_DIM, HEADS, jnp.float32)


def _torch_tables(tables: rope.Tables) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = (
        torch.from_numpy(np.asarray(t).swapaxes(0, 1)[None].copy()).repeat(2, 1, 1, 1) for t in tables
    )
    return cos, sin


def test_self_attention_equals_the_official_module() -> None:
    """Self-attention turns queries and keys with one table and matches in f32."""
    module, (x, _) = _official(None), _inputs()
    state = prefixed_state(module, f"{KEY}.")
    table = _table(QUERY)
    assert key_diff(table, state) == AGREES
    turn = _tables(TOKENS)
    want = module(torch.from_numpy(x), pe=_torch_tables(turn)).numpy()
    got = attention.apply(load(table, state), jnp.asarray(x), heads=HEADS, rope_q=turn)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("turned", [False, True])
def test_cross_attention_equals_the_official_module(turned: bool) -> None:
    """Keys and values come from the context, with their own rotation or none."""
    module, (x, context) = _official(CONTEXT), _inputs()
    rope_q, rope_k = (_tables(TOKENS), _tables(KEYS)) if turned else (None, None)
    pe = {"pe": _torch_tables(rope_q), "k_pe": _torch_tables(rope_k)} if rope_q and rope_k else {}
    want = module(torch.from_numpy(x), torch.from_numpy(context), **pe).numpy()
    params = load(_table(CONTEXT), prefixed_state(module, f"{KEY}."))
    got = attention.apply(
        params, jnp.asarray(x), jnp.asarray(context), heads=HEADS, rope_q=rope_q, rope_k=rope_k
    )
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_bfloat16_stays_close_to_float32() -> None:
    """A bf16 run points the same way as the f32 run."""
    module, (x, context) = _official(CONTEXT), _inputs()
    want = module(torch.from_numpy(x), torch.from_numpy(context)).numpy().ravel()
    params = load(_table(CONTEXT), prefixed_state(module, f"{KEY}."), jnp.bfloat16)
    out = attention.apply(
        params, jnp.asarray(x, jnp.bfloat16), jnp.asarray(context, jnp.bfloat16), heads=HEADS
    )
    assert out.dtype == jnp.bfloat16
    got = np.asarray(out, np.float32).ravel()
    assert got @ want / np.linalg.norm(got) / np.linalg.norm(want) > 0.999


def test_loading_names_missing_keys_and_wrong_shapes() -> None:
    """The loader refuses a state dict that does not fit, and says where."""
    state = prefixed_state(_official(CONTEXT), f"{KEY}.")
    state[f"{KEY}.to_q.weight"] = state[f"{KEY}.to_q.weight"][:3]
    del state[f"{KEY}.to_v.bias"]
    with pytest.raises(
        ValueError, match=r"missing \['blocks.0.attn.to_v.bias'\].*to_q.weight: wanted \(16, 24\)"
    ):
        load(_table(CONTEXT), state)
