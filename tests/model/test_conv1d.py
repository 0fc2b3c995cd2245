"""One-dimensional convolutions against torch."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from loading import load

from ltxbuild.model import conv1d
from ltxbuild.model.forms import Convolution


def _state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {f"official.{name}": value for name, value in module.state_dict().items()}


def _signal(length: int, channels: int) -> torch.Tensor:
    return torch.randn(1, channels, length, generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("form", ["taps", "loop"])
@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (3, 1), (7, 3), (11, 5)])
def test_convolution_equals_torch(taps: int, dilation: int, form: Convolution) -> None:
    """Either form of a dilated convolution is torch's, also where it reaches beyond the signal or is data."""
    torch.manual_seed(0)
    module = torch.nn.Conv1d(4, 6, taps, dilation=dilation, padding=(taps - 1) * dilation // 2)
    params = load(conv1d.conv1d("ours", "official", 6, 4, taps), _state(module))["ours"]
    x = _signal(13, 4)
    ours = jnp.asarray(x[0].T.numpy())
    known = [2, dilation, 6]
    got = conv1d.convolve1d(params["weight"], ours, dilation, form)
    chosen = conv1d.convolve1d_of(params["weight"], ours, known, jnp.int32(1), form)
    want = module(x)[0].T.detach().numpy()
    np.testing.assert_allclose(got + params["bias"], want, atol=2e-6)
    np.testing.assert_allclose(chosen + params["bias"], want, atol=2e-6)


@pytest.mark.parametrize(("taps", "stride"), [(11, 5), (4, 2), (12, 6), (3, 3), (7, 2)])
def test_transposed_convolution_equals_torch(taps: int, stride: int) -> None:
    """The sum of overlapping pieces is torch's transposed convolution, also where the last is cut."""
    torch.manual_seed(0)
    module = torch.nn.ConvTranspose1d(4, 6, taps, stride, padding=(taps - stride) // 2)
    params = load(conv1d.transposed1d("ours", "official", 6, 4, taps), _state(module))["ours"]
    x = _signal(9, 4)
    got = conv1d.transpose_convolve1d(params, jnp.asarray(x[0].T.numpy()), stride)
    np.testing.assert_allclose(got, module(x)[0].T.detach().numpy(), atol=2e-6)
