"""Positions and rotary tables against the official ones."""

from typing import Any

import diffusion
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusion import import_oracles

from ltxbuild.model import rope
from ltxbuild.model.config import TransformerConfig
from ltxbuild.model.geometry import Geometry
from ltxbuild.model.positions import audio_seconds, frame_seconds, pixels, rope_tables

import_oracles()
from ltx_core.model.transformer.rope import (  # noqa: E402
    LTXRopeType,
    apply_split_rotary_emb,
    generate_freq_grid_np,
    precompute_freqs_cis,
)

GEOMETRIES = [
    Geometry(3, 2, 3, 5, 24.0),
    Geometry(16, 4, 6, 126, 24.0),
    Geometry(2, 3, 2, 9, 29.97),
    Geometry(1, 1, 1, 1, 25.0),
]


def _full_size() -> TransformerConfig:
    return diffusion.config().model_copy(
        update={
            "num_attention_heads": 32,
            "audio_num_attention_heads": 32,
            "attention_head_dim": 128,
            "audio_attention_head_dim": 64,
            "cross_attention_dim": 4096,
            "audio_cross_attention_dim": 2048,
        }
    )


def _official(positions: torch.Tensor, dim: int, max_pos: list[int], heads: int, dtype: torch.dtype) -> Any:
    tables = precompute_freqs_cis(
        positions,
        dim=dim,
        out_dtype=dtype,
        max_pos=max_pos,
        use_middle_indices_grid=True,
        num_attention_heads=heads,
        rope_type=LTXRopeType.SPLIT,
        freq_grid_generator=generate_freq_grid_np,
    )
    return tuple(t[0].swapaxes(0, 1).float().numpy() for t in tables)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_positions_are_the_official_ones(geometry: Geometry) -> None:
    """Seconds and pixels of all tokens are equal bit for bit."""
    video = diffusion.video_positions(geometry).mean(-1)[0].numpy()
    axes = (frame_seconds(geometry.frames, geometry.fps), pixels(geometry.height), pixels(geometry.width))
    for want, got in zip(video, np.meshgrid(*axes, indexing="ij"), strict=True):
        np.testing.assert_array_equal(got.ravel(), want)
    np.testing.assert_array_equal(
        audio_seconds(geometry.audio), diffusion.audio_positions(geometry).mean(-1)[0, 0].numpy()
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("config", [diffusion.config(), _full_size()], ids=["tiny", "full"])
def test_tables_are_the_official_ones(config: TransformerConfig, geometry: Geometry, dtype: str) -> None:
    """All four tables match, at full width with its two padded angles too; in bf16 nearly all bit for bit."""
    ours = jax.jit(lambda: rope_tables(config, geometry, dtype))()
    heads, target = config.num_attention_heads, getattr(torch, dtype)
    video, audio = diffusion.video_positions(geometry), diffusion.audio_positions(geometry)
    want = (
        _official(video, config.video_dim, [20, 2048, 2048], heads, target),
        _official(audio, config.audio_dim, [20], heads, target),
        _official(video[:, :1], config.audio_cross_attention_dim, [20], heads, target),
        _official(audio, config.audio_cross_attention_dim, [20], heads, target),
    )
    for got, theirs in zip(jax.tree.leaves(ours), [t for pair in want for t in pair], strict=True):
        assert got.dtype == dtype
        values = np.asarray(got, np.float32)
        np.testing.assert_allclose(values, theirs, atol=1e-6 if dtype == "float32" else 4e-3)
        assert dtype == "float32" or (values == theirs).mean() > 0.999


def test_rotation_rounds_like_torch() -> None:
    """In bf16 the rotation gives torch's values bit for bit: one product rounded, the other fused."""
    heads, dim, tokens = 2, 16, 18
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((1, tokens, heads, dim)), jnp.bfloat16)
    turn = rope_tables(diffusion.config(), GEOMETRIES[0], jnp.bfloat16).video
    run = jax.jit(rope.rotate).lower(x, turn)
    got = run.compile(compiler_options={"xla_allow_excess_precision": False})(x, turn)
    cos, sin = (torch.from_numpy(np.array(t, np.float32).swapaxes(0, 1)[None]).bfloat16() for t in turn)
    x_torch = torch.from_numpy(np.array(x, np.float32)).bfloat16().reshape(1, tokens, heads * dim)
    want = apply_split_rotary_emb(x_torch, cos, sin).float().numpy()
    np.testing.assert_array_equal(np.asarray(got, np.float32).reshape(1, tokens, -1), want)


def test_tables_are_no_constants_of_the_program() -> None:
    """Only the small per-axis tables are embedded; the token tables are made when the program runs."""
    geometry = Geometry(8, 16, 16, 16, 24.0)
    compiled = jax.jit(lambda: rope_tables(_full_size(), geometry, jnp.bfloat16)).lower().compile()
    made = sum(table.nbytes for table in jax.tree.leaves(compiled()))
    assert len(compiled.runtime_executable().serialize()) < made / 20
