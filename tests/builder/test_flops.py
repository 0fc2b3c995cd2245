"""Floating-point operations of traced programs, against products worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax._src.cudnn import fused_attention_stablehlo
from jax.sharding import Mesh, PartitionSpec

from ltxbuild.compiler.flops import count
from ltxbuild.model.flash import Blocks
from ltxbuild.model.layers import attention

X = jnp.zeros((2, 8, 16))
W = jnp.zeros((5, 16, 16))


def conv(kernel: tuple[int, ...], groups: int) -> Callable[[Any], Any]:
    """A 2-D convolution over `[1, 8, 8, 16]`."""
    weights = jnp.zeros(kernel)
    layout = ("NHWC", "HWIO", "NHWC")
    return lambda x: lax.conv_general_dilated(
        x, weights, (1, 1), "SAME", dimension_numbers=layout, feature_group_count=groups
    )


def on_devices(x: Any) -> Any:
    """A product on each device's own part."""
    mesh = Mesh(np.array(jax.devices()[:1]), ("tp",))
    spec = PartitionSpec()
    return jax.shard_map(lambda y: y @ W[0], mesh=mesh, in_specs=spec, out_specs=spec)(x)


PRODUCT = 2 * (2 * 8 * 16) * 16


@pytest.mark.parametrize(
    ("function", "shape", "flops"),
    [
        (lambda x: jax.nn.gelu(x @ W[0]), X.shape, PRODUCT),
        (lambda x: lax.scan(lambda c, w: (c @ w, None), x, W)[0], X.shape, 5 * PRODUCT),
        (lambda x: lax.map(lambda y: lax.scan(lambda c, w: (c @ w, None), y, W)[0], x), X.shape, 5 * PRODUCT),
        (lambda x: lax.cond(x[0, 0, 0] > 0, lambda y: y @ W[0], lambda y: y, x), X.shape, PRODUCT),
        (lambda x: jnp.einsum("bth,bsh->bts", x, x), X.shape, 2 * (2 * 8 * 8) * 16),
        (on_devices, X.shape, PRODUCT),
        (conv((3, 3, 16, 32), 1), (1, 8, 8, 16), 2 * (8 * 8 * 32) * 9 * 16),
        (conv((3, 3, 1, 16), 16), (1, 8, 8, 16), 2 * (8 * 8 * 16) * 9),
    ],
    ids=["product", "loop", "loop in a loop", "branch", "einsum", "devices", "convolution", "depthwise"],
)
def test_products_and_convolutions(function: Any, shape: tuple[int, ...], flops: int) -> None:
    """Two for each term of a sum, in every iteration of every loop."""
    assert count(jax.make_jaxpr(function)(jnp.zeros(shape)).jaxpr) == flops


def test_kernels_of_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores, and sums of values: what attention without a kernel counts, also where a kernel is opaque."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91200)  # needs no cuDNN
    query = jax.ShapeDtypeStruct((2, 256, 4, 64), jnp.bfloat16)
    key = jax.ShapeDtypeStruct((2, 384, 4, 64), jnp.bfloat16)
    kernels: dict[str, Callable[..., Any]] = {
        "plain": lambda q, k, v: attention(q, k, v, scale=0.125),
        "cuda": lambda q, k, v: attention(q, k, v, scale=0.125, kind="cudnn"),
        "tpu": lambda q, k, v: attention(q, k, v, scale=0.125, kind=Blocks(128, 128, 128)),
    }
    counted = {name: count(jax.make_jaxpr(f)(query, key, key).jaxpr) for name, f in kernels.items()}
    assert counted == dict.fromkeys(kernels, 2 * 2 * (2 * 4 * 256 * 384) * 64)
