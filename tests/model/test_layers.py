"""The shared layers: rounding as in the official code, equal attention forms, equal layer loops."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import Array
from torch.nn import functional

from ltxbuild.model import adaln, layers


def _rounded(function: Callable[..., Array], *args: Array) -> np.ndarray:
    """Run in bf16 with every rounding in place."""
    options = {"xla_allow_excess_precision": False}
    out = jax.jit(function).lower(*args).compile(compiler_options=options)(*args)
    return np.asarray(out, np.float32)


def _pair(*shape: int, seed: int = 0) -> tuple[Array, torch.Tensor]:
    values = jnp.asarray(np.random.default_rng(seed).standard_normal(shape) * 2, jnp.bfloat16)
    return values, torch.from_numpy(np.array(values, np.float32)).bfloat16()


@pytest.mark.parametrize(
    ("ours", "official"),
    [
        (layers.rms_norm, lambda x: functional.rms_norm(x, (48,), eps=1e-6)),
        (layers.layer_norm, lambda x: functional.layer_norm(x, (48,), eps=1e-6)),
        (layers.silu, functional.silu),
    ],
)
def test_one_operand_layers_round_like_torch(
    ours: Callable[[Array], Array], official: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """In bf16 norms and activations give torch's values bit for bit."""
    x, x_torch = _pair(2, 40, 48)
    np.testing.assert_array_equal(_rounded(ours, x), official(x_torch).float().numpy())


def test_gelu_rounds_like_torch() -> None:
    """GELU gives torch's bf16 values bit for bit where its result is more than rounding noise."""
    x = jnp.linspace(-3, 6, 1000, dtype=jnp.bfloat16)
    want = functional.gelu(torch.from_numpy(np.array(x, np.float32)).bfloat16(), approximate="tanh")
    np.testing.assert_array_equal(_rounded(layers.gelu_tanh, x), want.float().numpy())


def test_weighted_norm_rounds_like_torch() -> None:
    """The weight is applied before the one rounding."""
    (x, x_torch), (weight, weight_torch) = _pair(2, 40, 48), _pair(48, seed=1)
    want = functional.rms_norm(x_torch, (48,), weight_torch, 1e-6)
    np.testing.assert_array_equal(_rounded(layers.rms_norm, x, weight), want.float().numpy())


def test_modulation_rounds_each_operation() -> None:
    """`x * (1 + scale) + shift` is rounded three times."""
    (x, x_torch), (scale, scale_torch), (shift, shift_torch) = (_pair(2, 40, 48, seed=s) for s in range(3))
    want = x_torch * (1 + scale_torch) + shift_torch
    np.testing.assert_array_equal(_rounded(adaln.modulate, x, scale, shift), want.float().numpy())


def test_linear_adds_the_bias_before_rounding() -> None:
    """A bf16 linear layer rounds once, after the bias."""
    weight, bias = jnp.asarray([[1.0]], jnp.bfloat16), jnp.asarray([2.0**-9], jnp.bfloat16)
    x = jnp.asarray([[1 + 2.0**-7 + 2.0**-9]], jnp.float32)
    assert layers.linear({"weight": weight, "bias": bias}, x).item() == 1 + 2.0**-7 + 2.0**-8
    assert layers.linear({"weight": weight}, jnp.ones((1, 1), jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("tokens", [1, 5])
def test_zeros_behind_the_rows_of_a_weight_change_nothing(tokens: int) -> None:
    """Tokens meet as many zeros; whole numbers are summed up exactly in any order."""
    numbers = np.random.default_rng(0).integers(-3, 4, (tokens + 3, 16))
    x, weight = jnp.asarray(numbers[3:], jnp.bfloat16), jnp.asarray(numbers[:3], jnp.bfloat16)
    wide = jnp.pad(weight, ((0, 0), (0, 64)))
    got = jax.jit(lambda x, w: layers.linear({"weight": w}, x))(x, wide)
    np.testing.assert_array_equal(got, numbers[3:] @ numbers[:3].T)


def _attention_inputs(tokens: int, keys: int, heads: int, key_heads: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(tokens)
    shapes = ((2, tokens, heads, 8), (2, keys, key_heads, 8), (2, keys, key_heads, 8))
    q, k, v = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)
    return q, k, v


@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_attention_equals_torch(key_heads: int) -> None:
    """Plain attention matches torch, with one or several query heads per key head."""
    q, k, v = _attention_inputs(9, 11, 4, key_heads)
    mask = np.random.default_rng(0).random((2, 9, 11)) < 0.6
    mask[:, :, 3] = True
    as_torch = (torch.from_numpy(np.array(x)).transpose(1, 2) for x in (q, k, v))
    want = functional.scaled_dot_product_attention(
        *as_torch, attn_mask=torch.from_numpy(mask)[:, None], scale=0.3, enable_gqa=True
    )
    got = layers.attention(q, k, v, scale=0.3, mask=jnp.asarray(mask))
    np.testing.assert_allclose(got, want.transpose(1, 2).numpy(), atol=2e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tokens", [8, 13])
def test_blocked_attention_equals_plain(tokens: int, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of queries give what all queries at once give, also when the last block is short."""
    monkeypatch.setattr(layers, "BLOCK_QUERIES", 4)
    q, k, v = _attention_inputs(tokens, 10, 2, 2)
    mask = jnp.asarray(np.random.default_rng(1).random((1, tokens, 10)) < 0.5) if masked else None
    plain = layers.attention(q, k, v, scale=0.3, mask=mask)
    blocked = layers.attention(q, k, v, scale=0.3, mask=mask, kind="blocked")
    np.testing.assert_allclose(blocked, plain, atol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "blocked"])
def test_hidden_keys_are_as_if_they_were_not_there(
    kind: layers.AttentionKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mask of one row hides the same keys from all queries."""
    monkeypatch.setattr(layers, "BLOCK_QUERIES", 4)
    q, k, v = _attention_inputs(9, 10, 2, 2)
    seen = jnp.arange(10) < 7
    got = layers.attention(q, k, v, scale=0.3, mask=seen[None, None], kind=kind)
    np.testing.assert_allclose(got, layers.attention(q, k[:, :7], v[:, :7], scale=0.3), atol=1e-6)


def test_a_query_that_sees_nothing_gives_zeros() -> None:
    """A fully masked row is zero and does not spoil its neighbours."""
    q, k, v = _attention_inputs(3, 4, 2, 2)
    mask = jnp.ones((1, 3, 4), bool).at[0, 1].set(False)
    out = np.asarray(layers.attention(q, k, v, scale=0.3, mask=mask))
    full = np.asarray(layers.attention(q, k, v, scale=0.3))
    assert not out[:, 1].any()
    np.testing.assert_array_equal(out[:, ::2], full[:, ::2])


def test_large_scores_do_not_overflow() -> None:
    """The largest score is taken off before the exponential."""
    q, k, v = _attention_inputs(3, 4, 1, 1)
    out = layers.attention(q * 1e4, k, v, scale=1.0)
    best = jnp.argmax(jnp.einsum("bthd,bshd->bhts", q, k)[:, 0], axis=-1)
    np.testing.assert_allclose(out[0, :, 0], v[0, best[0], 0], atol=1e-6)


@pytest.mark.parametrize("with_extra", [False, True])
def test_layer_loops_agree(with_extra: bool) -> None:
    """Stacked layers are scanned, a list of layers is written out; order and extras are the same."""
    stacked = {"w": jnp.asarray([2.0, 3.0, 5.0])}
    extra = jnp.asarray([1.0, 10.0, 100.0]) if with_extra else None

    def body(carry: Array, layer: Any) -> Array:
        params, added = layer if with_extra else (layer, jnp.float32(1))
        return carry * params["w"] + added

    listed = [{"w": w} for w in stacked["w"]]
    want = ((7 * 2 + 1) * 3 + 10) * 5 + 100 if with_extra else ((7 * 2 + 1) * 3 + 1) * 5 + 1
    assert layers.run_layers(body, jnp.float32(7), stacked, extra).item() == want
    assert layers.run_layers(body, jnp.float32(7), listed, extra).item() == want


def test_feed_forward_equals_torch() -> None:
    """Up, GELU with the tanh approximation, down."""
    rng = np.random.default_rng(0)
    shapes = {"up": (24, 6), "down": (6, 24)}
    params = {
        name: {"weight": rng.standard_normal(s, np.float32), "bias": rng.standard_normal(s[0], np.float32)}
        for name, s in shapes.items()
    }
    x = rng.standard_normal((2, 3, 6), np.float32)
    hidden = functional.linear(torch.from_numpy(x), *map(torch.from_numpy, params["up"].values()))
    want = functional.linear(
        functional.gelu(hidden, approximate="tanh"), *map(torch.from_numpy, params["down"].values())
    )
    got = layers.feed_forward(jax.tree.map(jnp.asarray, params), jnp.asarray(x))
    np.testing.assert_allclose(got, want.numpy(), atol=2e-5)
