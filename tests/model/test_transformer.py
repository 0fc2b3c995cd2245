"""The audio-video transformer against the official module."""

from typing import Any

import diffusion
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusion import GEOMETRY, Inputs, Levels, LTXModelConfigurator, MultiModalTransformerArgsPreprocessor
from loading import AGREES, key_diff
from oracles import tiny_config

from ltxbuild.model import adaln, transformer
from ltxbuild.model.adaln import Timesteps
from ltxbuild.model.config import TransformerConfig
from ltxbuild.model.layers import AttentionKind
from ltxbuild.model.positions import rope_tables


def _velocity(
    params: dict[str, Any],
    given: Inputs,
    video: Timesteps,
    audio: Timesteps,
    dtype: Any = jnp.float32,
    kind: AttentionKind = "plain",
) -> tuple[np.ndarray, np.ndarray]:
    config = diffusion.config()
    ropes = rope_tables(config, GEOMETRY, dtype)
    tokens = (jnp.asarray(x, dtype) for x in given)
    run = jax.jit(transformer.velocity, static_argnames=("config", "kind"))
    out = run(params, *tokens, video, audio, ropes, config=config, kind=kind)
    assert all(o.dtype == dtype for o in out)
    return tuple(np.asarray(o, np.float32) for o in out)  # type: ignore[return-value]


def _agree(got: tuple[np.ndarray, ...], want: tuple[np.ndarray, ...], relative: float = 1e-5) -> None:
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=relative * np.abs(theirs).max())


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def _full_size() -> dict[str, Any]:
    section = tiny_config()["transformer"] | {
        "num_layers": 48,
        "num_attention_heads": 32,
        "attention_head_dim": 128,
        "cross_attention_dim": 4096,
        "caption_channels": 3840,
        "audio_num_attention_heads": 32,
        "audio_attention_head_dim": 64,
        "audio_cross_attention_dim": 2048,
        "connector_num_layers": 8,
        "connector_num_attention_heads": 32,
        "connector_attention_head_dim": 128,
        "audio_connector_num_attention_heads": 32,
        "audio_connector_attention_head_dim": 64,
    }
    return {"transformer": section}


def test_full_size_table_is_the_official_model() -> None:
    """At 22 billion parameters keys and shapes are those of the official model, tensor by tensor."""
    with torch.device("meta"):
        official = LTXModelConfigurator.from_config(_full_size())
    state = {f"{diffusion.PREFIX}{name}": tensor for name, tensor in official.state_dict().items()}
    table = transformer.params(TransformerConfig.model_validate(_full_size()["transformer"]))
    assert key_diff(table, state) == AGREES
    assert sum(len(spec.sources) for spec in table) == 4186
    assert sum(spec.size for spec in table) == sum(tensor.numel() for tensor in state.values())


def test_equals_the_official_model() -> None:
    """Two samples at different noise levels match in f32."""
    given, sigma = diffusion.inputs(batch=2), np.array([0.7, 0.05], np.float32)
    levels = Levels(sigma, sigma[:, None])
    want = diffusion.official_velocity(given, levels, levels)
    times = adaln.uniform(jnp.asarray(sigma))
    _agree(_velocity(diffusion.params(), given, times, times), want)


def test_blocked_attention_gives_the_same_velocity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Going through the queries in blocks changes nothing but rounding."""
    monkeypatch.setattr("ltxbuild.model.layers.BLOCK_QUERIES", 4)
    given, times = diffusion.inputs(), adaln.uniform(jnp.asarray([0.7], jnp.float32))
    plain = _velocity(diffusion.params(), given, times, times)
    _agree(_velocity(diffusion.params(), given, times, times, kind="blocked"), plain)


def test_written_out_blocks_equal_scanned_blocks() -> None:
    """A sequence of per-block trees gives what the stacked tree gives."""
    given, times = diffusion.inputs(), adaln.uniform(jnp.asarray([0.7], jnp.float32))
    params = diffusion.params()
    layers = [jax.tree.map(lambda leaf, i=i: leaf[i], params["blocks"]) for i in range(2)]
    _agree(
        _velocity({**params, "blocks": layers}, given, times, times),
        _velocity(params, given, times, times),
        1e-6,
    )


@pytest.mark.parametrize("sigma_audio", [0.6, 0.2])
def test_two_noise_levels_per_modality(sigma_audio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given tokens have a level of their own, the gates follow the other modality, the text its own sigma."""
    monkeypatch.setattr(
        MultiModalTransformerArgsPreprocessor, "prepare", diffusion.prepare_with_own_timesteps
    )
    given = diffusion.inputs()
    sigmas = np.array([0.6], np.float32), np.array([sigma_audio], np.float32)
    kept = np.arange(GEOMETRY.tokens) < GEOMETRY.height * GEOMETRY.width
    heard = np.arange(GEOMETRY.audio) % 2 == 1
    masks = np.where(kept, 0.25, 1).astype(np.float32), np.where(heard, 0, 1).astype(np.float32)
    levels = [Levels(sigma, (sigma[:, None] * mask[None])) for sigma, mask in zip(sigmas, masks, strict=True)]
    want = diffusion.official_velocity(given, *levels)
    times = [
        Timesteps(
            jnp.asarray(sigma), jnp.asarray([[sigma[0], sigma[0] * part]]), jnp.asarray(which, jnp.int32)
        )
        for sigma, part, which in zip(sigmas, (np.float32(0.25), np.float32(0)), (kept, heard), strict=True)
    ]
    got = _velocity(diffusion.params(), given, *times)
    _agree(got, want)
    clean = transformer.to_denoised(jnp.asarray(given.video), jnp.asarray(got[0]), times[0])
    _agree((np.asarray(clean),), (given.video - want[0] * levels[0].timesteps[..., None],))


def test_equal_levels_are_one_level() -> None:
    """Two levels of the same value give what one level gives."""
    given, sigma = diffusion.inputs(), jnp.asarray([0.3], jnp.float32)
    one = adaln.uniform(sigma)

    def two(tokens: int) -> Timesteps:
        return Timesteps(sigma, jnp.stack([sigma, sigma], axis=1), jnp.arange(tokens) % 2)

    params = diffusion.params()
    single = _velocity(params, given, one, one)
    double = _velocity(params, given, two(GEOMETRY.tokens), two(GEOMETRY.audio))
    _agree(double, single, 1e-6)


def test_bfloat16_stays_close_to_float32() -> None:
    """A bf16 run points the same way as the f32 run."""
    given, times = diffusion.inputs(), adaln.uniform(jnp.asarray([0.7], jnp.float32))
    exact = _velocity(diffusion.params(), given, times, times)
    rounded = _velocity(diffusion.params(jnp.bfloat16), given, times, times, jnp.bfloat16)
    assert all(_cosine(a, b) >= 0.999 for a, b in zip(exact, rounded, strict=True))


def test_denoised_is_rounded_once() -> None:
    """The clean prediction is computed in f32 and rounded at the end only."""
    noisy, velocity = jnp.asarray([[[1.0078125]]], jnp.bfloat16), jnp.asarray([[[3.015625]]], jnp.bfloat16)
    sigma = np.float32(0.334)
    clean = transformer.to_denoised(noisy, velocity, adaln.uniform(jnp.asarray([sigma])))
    want = jnp.asarray(np.float32(1.0078125) - np.float32(3.015625) * sigma, jnp.bfloat16)
    assert clean.dtype == jnp.bfloat16
    assert clean.item() == want.item()
