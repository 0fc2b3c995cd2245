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
KINDS = {
    "spatial_x2": {},
    "spatial_x2 rational": {"rational_resampler": True},
    "spatial_x1.5": {"spatial_scale": 1.5, "rational_resampler": True},
    "temporal_x2": {"spatial_upsample": False, "temporal_upsample": True},
}
"""What the official files of each kind say, and one more that is accepted."""
SIZES = {"spatial_x2": (3, 8, 12), "spatial_x1.5": (3, 6, 9), "temporal_x2": (5, 4, 6)}
REAL = {"in_channels": 128, "mid_channels": 1024, "num_blocks_per_stage": 4}
STRICT = {"xla_allow_excess_precision": False, "xla_backend_optimization_level": 0}


def _state(module: torch.nn.Module, statistics: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Keys of the upsampler's file, and the statistics from the video VAE's."""
    extra = {f"vae.per_channel_statistics.{key}": value for key, value in statistics.state_dict().items()}
    return {**module.state_dict(), **extra}


def _section(kind: str) -> dict[str, Any]:
    return {**SECTION, **KINDS[kind]}


def _config(kind: str, **changes: Any) -> UpsamplerConfig:
    return UpsamplerConfig.model_validate({**_section(kind), **changes})


def _official(kind: str) -> torch.nn.Module:
    """The official module with random weights; the blur is what it is."""
    module = LatentUpsamplerConfigurator.from_config(_section(kind))
    blurs = {key: value.clone() for key, value in module.state_dict().items() if "blur" in key}
    randomize(module).load_state_dict(blurs, strict=False)
    return module


def _run(kind: str, params: Any, latent: Any) -> Any:
    run = jax.jit(lambda params, latent: upsampler.upsample(params, latent, _config(kind)))
    compiled = run.lower(params, latent).compile(compiler_options=STRICT)
    return np.asarray(compiled(params, latent).astype(jnp.float32))


Case = tuple[str, dict[str, torch.Tensor], Any, Any]


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest) -> Case:
    """A kind, weights, a latent and what the official upsampler makes of it."""
    module, statistics = _official(request.param), randomize(PerChannelStatistics(16), 1)
    latent = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(2))
    want = upsample_video(latent, SimpleNamespace(per_channel_statistics=statistics), module)
    return request.param, _state(module, statistics), latent.numpy(), want.numpy()


def test_equals_the_official_one(case: Case) -> None:
    """In f32 the upsampled latent, un-normalised and normalised again, is the official one."""
    kind, state, latent, want = case
    got = _run(kind, load(upsampler.params(_config(kind)), state), jnp.asarray(latent))
    assert got.shape == (1, 16, *SIZES[kind.split()[0]])
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_in_bf16(case: Case) -> None:
    """In bf16 the latent stays close to the f32 one."""
    kind, state, latent, want = case
    params = load(upsampler.params(_config(kind)), state, jnp.bfloat16)
    got = _run(kind, params, jnp.asarray(latent, jnp.bfloat16))
    assert np.sum(got * want) / np.sqrt(np.sum(got * got) * np.sum(want * want)) >= 0.999


@pytest.mark.parametrize(("kind", "keys"), [("spatial_x2", 74), ("spatial_x1.5", 75), ("temporal_x2", 74)])
def test_keys_at_real_size(kind: str, keys: int) -> None:
    """At the real size the table names exactly the official keys (72 or 73) and the two statistics."""
    with torch.device("meta"):
        module = LatentUpsamplerConfigurator.from_config({**_section(kind), **REAL})
        statistics = PerChannelStatistics(128)
    state = _state(module, statistics)
    assert len(state) == keys
    assert key_diff(upsampler.params(_config(kind, **REAL)), state) == AGREES


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("spatial_x2", "spatial_upsample", False),
        ("spatial_x2", "temporal_upsample", True),
        ("spatial_x2", "spatial_scale", 1.5),
        ("spatial_x1.5", "spatial_scale", 0.75),
        ("temporal_x2", "spatial_upsample", True),
        ("spatial_x2", "mid_channels", 48),
    ],
)
def test_other_kinds_are_refused(kind: str, field: str, value: Any) -> None:
    """An upsampler of no supported kind is refused, with the field that says so."""
    with pytest.raises(ValueError, match=field):
        _config(kind, **{field: value})


def test_kinds() -> None:
    """A config says what kind it is."""
    assert [_config(kind).kind for kind in KINDS] == [kind.split()[0] for kind in KINDS]
