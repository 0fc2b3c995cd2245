"""The anti-aliased activation against the official one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from loading import AGREES, key_diff, load, prefixed_state
from oracles import import_oracles

from ltxbuild.model import antialias

import_oracles()
from ltx_core.model.audio_vae.vocoder import Activation1d, SnakeBeta  # noqa: E402

CHANNELS = 5
TABLE = antialias.activation("act", "official", CHANNELS)


def _official(seed: int) -> Any:
    """An activation with random slopes and lopsided filters, so that a flipped filter shows."""
    module = Activation1d(SnakeBeta(CHANNELS)).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        value.copy_(value + 0.1 * noise if name.endswith("filter") else 0.3 * noise)
    return module


@pytest.mark.parametrize("length", [1, 2, 6, 40])
def test_equals_the_official_activation(length: int) -> None:
    """Two activations at once give what each gives alone, down to signals shorter than the filter."""
    modules = [_official(seed) for seed in (0, 1)]
    loaded = [load(TABLE, prefixed_state(module, "official."))["act"] for module in modules]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *loaded)
    x = torch.randn(2, CHANNELS, length, generator=torch.Generator().manual_seed(length))
    want = torch.cat([module(part[None]) for module, part in zip(modules, x, strict=True)])
    got = np.asarray(jax.jit(antialias.activate)(params, jnp.asarray(x.mT.numpy())))
    np.testing.assert_allclose(np.swapaxes(got, 1, 2), want.numpy(), atol=2e-6)


def test_names_every_official_tensor() -> None:
    """The table reads the two slopes and the two filters."""
    assert key_diff(TABLE, prefixed_state(_official(0), "official.")) == AGREES


@pytest.mark.parametrize("reach", [1.0, 30.0, 1000.0])
def test_squared_sine(reach: float) -> None:
    """Within a few roundings of the exact value, for arguments of any sign and many periods."""
    x = np.linspace(-reach, reach, 100_001, dtype=np.float32)
    got = np.asarray(jax.jit(antialias.sine_squared)(x))
    np.testing.assert_allclose(got, np.sin(x.astype(np.float64)) ** 2, atol=3e-7)
