"""The latent upsampler against the official one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from loading import AGREES, key_diff, load
from oracles import import_oracles, randomize

from ltxbuild.model import upsampler
from ltxbuild.model.config import UpsamplerConfig

import_oracles()
from ltx_core.model.upsampler import LatentUpsamplerConfigurator, upsample_video  # noqa: E402
from ltx_core.model.video_vae.ops import PerChannelStatistics  # noqa: E402

SECTION = {
    "in_channels": 16,
    "mid_channels": 64,
    "num_blocks_per_stage": 2,
    "dims": 3,
    "spatial_upsample": True,
    "temporal_upsample": False,
    "spatial_scale": 2.0,
    "rational_resampler": False,
}
REAL = {**SECTION, "in_channels": 128, "mid_channels": 1024, "num_blocks_per_stage": 4}
STRICT = {"xla_allow_excess_precision": False, "xla_backend_optimization_level": 0}
CONFIG = UpsamplerConfig.model_validate(SECTION)


def _state(module: torch.nn.Module, statistics: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Keys of the upsampler's file, and the statistics from the video VAE's."""
    extra = {f"vae.per_channel_statistics.{key}": value for key, value in statistics.state_dict().items()}
    return {**module.state_dict(), **extra}


def _official() -> tuple[torch.nn.Module, torch.nn.Module]:
    return randomize(LatentUpsamplerConfigurator.from_config(SECTION)), randomize(PerChannelStatistics(16), 1)


def _run(params: Any, latent: Any) -> Any:
    run = jax.jit(lambda params, latent: upsampler.upsample(params, latent, CONFIG))
    compiled = run.lower(params, latent).compile(compiler_options=STRICT)
    return np.asarray(compiled(params, latent).astype(jnp.float32))


@pytest.fixture(scope="module")
def case() -> tuple[dict[str, torch.Tensor], Any, Any]:
    """Weights, a latent and what the official upsampler makes of it."""
    module, statistics = _official()
    latent = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(2))
    want = upsample_video(latent, SimpleNamespace(per_channel_statistics=statistics), module)
    return _state(module, statistics), latent.numpy(), want.numpy()


def test_equals_the_official_one(case: Any) -> None:
    """In f32 the upsampled latent, un-normalised and normalised again, is the official one."""
    state, latent, want = case
    got = _run(load(upsampler.params(CONFIG), state), jnp.asarray(latent))
    assert got.shape == (1, 16, 3, 8, 12)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_in_bf16(case: Any) -> None:
    """In bf16 the latent stays close to the f32 one."""
    state, latent, want = case
    got = _run(load(upsampler.params(CONFIG), state, jnp.bfloat16), jnp.asarray(latent, jnp.bfloat16))
    assert np.sum(got * want) / np.sqrt(np.sum(got * got) * np.sum(want * want)) >= 0.999


def test_keys_at_real_size() -> None:
    """At the real size the table names exactly the 72 official keys and the two statistics."""
    with torch.device("meta"):
        module = LatentUpsamplerConfigurator.from_config(REAL)
        statistics = PerChannelStatistics(128)
    state = _state(module, statistics)
    assert len(state) == 74
    assert key_diff(upsampler.params(UpsamplerConfig.model_validate(REAL)), state) == AGREES


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("spatial_upsample", False),
        ("temporal_upsample", True),
        ("rational_resampler", True),
        ("spatial_scale", 1.5),
        ("mid_channels", 48),
    ],
)
def test_other_kinds_are_refused(field: str, value: Any) -> None:
    """The x1.5 and the temporal upsampler are refused with the field that says so."""
    with pytest.raises(ValueError, match=f"upsampler: {field} is {value}"):
        upsampler.params(UpsamplerConfig.model_validate({**SECTION, field: value}))
