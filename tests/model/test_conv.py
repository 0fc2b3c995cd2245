"""Channels-last convolutions against torch."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loading import load

from ltxbuild.model import conv, products
from ltxbuild.model.forms import Convolution


def _torch_conv(dims: int, out_channels: int, in_channels: int, kernel: tuple[int, ...]) -> torch.nn.Module:
    torch.manual_seed(0)
    kind = torch.nn.Conv2d if dims == 2 else torch.nn.Conv3d
    return kind(in_channels, out_channels, kernel).requires_grad_(False)


def _state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {f"official.{key}": value for key, value in module.state_dict().items()}


@pytest.mark.parametrize("form", ["taps", "products"])
@pytest.mark.parametrize(
    ("kernel", "padding"),
    [((3, 3), ((2, 0), (1, 1))), ((1, 1), ((0, 0), (0, 0))), ((2, 3), ((0, 0), (0, 3)))],
)
def test_2d_equals_torch(kernel: tuple[int, int], padding: products.Padding2d, form: Convolution) -> None:
    """A 2-D convolution with any padding is torch's on the same kernel and bias."""
    module = _torch_conv(2, 5, 4, kernel)
    params = load(conv.conv2d("ours", "official", 5, 4, kernel), _state(module))["ours"]
    x = torch.randn(2, 4, 6, 7)
    (top, bottom), (left, right) = padding
    want = module(F.pad(x, (left, right, top, bottom)))
    got = conv.convolve2d(params, jnp.asarray(x.permute(0, 2, 3, 1).numpy()), padding, form)
    np.testing.assert_allclose(np.moveaxis(np.asarray(got), -1, 1), want.numpy(), atol=2e-6)


@pytest.mark.parametrize("form", ["taps", "direct", "products", "winograd"])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (2, 1, 3)])
def test_3d_equals_torch(kernel: tuple[int, int, int], form: Convolution) -> None:
    """Every form of a 3-D convolution is torch's, also for uneven kernels."""
    module = _torch_conv(3, 5, 4, kernel)
    params = load(conv.conv3d("ours", "official", 5, 4, kernel), _state(module))["ours"]
    x = torch.randn(1, 4, 5, 6, 7)
    want = module(F.pad(x, (kernel[2] // 2,) * 2 + (kernel[1] // 2,) * 2))[0]
    got = conv.convolve3d(params, jnp.asarray(x[0].permute(1, 2, 3, 0).numpy()), form)
    np.testing.assert_allclose(np.moveaxis(np.asarray(got), -1, 0), want.numpy(), atol=2e-6)


def test_without_bias() -> None:
    """`bias=False` leaves the bias out of the table and out of the result."""
    table = conv.conv2d("ours", "official", 5, 4, (1, 1), bias=False)
    assert [spec.name for spec in table] == ["ours.weight"]
    got = conv.convolve2d({"weight": jnp.ones((1, 1, 4, 5))}, jnp.zeros((1, 2, 2, 4)), ((0, 0), (0, 0)))
    assert not got.any()


def test_split_channels_spread_as_in_the_checkpoint() -> None:
    """Split output channels and depth-to-space restore the checkpoint's numbering."""
    stride, channels = (2, 2, 3), 4
    module = _torch_conv(3, channels * 12, 3, (3, 3, 3))
    params = load(conv.conv3d("ours", "official", (channels, 12), 3), _state(module))["ours"]
    x = torch.randn(1, 3, 4, 5, 6)
    flat = module(F.pad(x, (1, 1, 1, 1)))[0]
    blocks = flat.reshape(channels, *stride, *flat.shape[1:]).permute(0, 4, 1, 5, 2, 6, 3)
    want = blocks.reshape(channels, 4, 10, 18)
    got = conv.depth_to_space(conv.convolve3d(params, jnp.asarray(x[0].permute(1, 2, 3, 0).numpy())), stride)
    np.testing.assert_allclose(np.moveaxis(np.asarray(got), -1, 0), want.numpy(), atol=2e-6)


@pytest.mark.parametrize("form", ["taps", "products"])
def test_bf16_rounds_once(form: Convolution) -> None:
    """In bf16 the taps and the bias are summed in f32: the result is the f32 result, rounded."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((5, 4, 4, 32)), jnp.bfloat16)
    params = {
        "weight": jnp.asarray(rng.standard_normal((3, 3, 3, 32, 8)), jnp.bfloat16),
        "bias": jnp.asarray(rng.standard_normal(8), jnp.bfloat16),
    }
    wide = {name: value.astype(jnp.float32) for name, value in params.items()}
    want = conv.convolve3d(wide, x.astype(jnp.float32)).astype(jnp.bfloat16)
    got = conv.convolve3d(params, x, form)
    assert got.dtype == jnp.bfloat16
    assert np.mean(np.asarray(got == want)) > 0.999


def test_replicated_frames() -> None:
    """The end frames are repeated as often as asked."""
    x = jnp.arange(3.0).reshape(3, 1, 1, 1)
    assert conv.replicate_frames(x, 2, 1).ravel().tolist() == [0, 0, 0, 1, 2, 2]
