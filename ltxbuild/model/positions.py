"""Where tokens are: seconds and pixels of each latent cell, and the rotary tables made from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from numpy.typing import NDArray

from ltxbuild.model import rope
from ltxbuild.model.config import TransformerConfig
from ltxbuild.model.geometry import FRAME_STRIDE, MEL_STRIDE, PIXEL_STRIDE, Geometry

Float32 = NDArray[np.float32]

MEL_HOP, SAMPLE_RATE = 160, 16000
"""Samples between mel frames, and samples per second, of the audio autoencoder."""


class RopeTables(NamedTuple):
    """Rotary tables of a run, cos and sin each `[tokens, heads, head_dim / 2]`.

    Attributes:
        video: Video self-attention: time, height, width.
        audio: Audio self-attention: time.
        cross_video: Video side of audio-video attention: time alone.
        cross_audio: Audio side of audio-video attention.
    """

    video: rope.Tables
    audio: rope.Tables
    cross_video: rope.Tables
    cross_audio: rope.Tables


def frame_seconds(frames: int, fps: float) -> Float32:
    """Middle of each latent frame in seconds, `[frames]`; the first latent holds a single frame."""
    edges = np.maximum(np.arange(frames + 1) * FRAME_STRIDE + 1 - FRAME_STRIDE, 0)
    return _middles(edges.astype(np.float32) / np.float32(fps))


def keyframe_seconds(frames: int, fps: float) -> Float32:
    """Middle of each pixel frame in seconds, `[frames]`: where a keyframe is whose latent holds one frame."""
    return _middles(np.arange(frames + 1).astype(np.float32) / np.float32(fps))


def pixels(cells: int) -> Float32:
    """Middle of each latent row or column in pixels, `[cells]`."""
    return _middles((np.arange(cells + 1) * PIXEL_STRIDE).astype(np.float32))


def audio_seconds(latents: int) -> Float32:
    """Middle of each audio latent in seconds, `[latents]`; the first latent holds a single mel frame."""
    mels = np.maximum(np.arange(latents + 1) * MEL_STRIDE + 1 - MEL_STRIDE, 0)
    return _middles(mels.astype(np.float32) * np.float32(MEL_HOP) / np.float32(SAMPLE_RATE))


def _middles(edges: Float32) -> Float32:
    middles: Float32 = (edges[:-1] + edges[1:]) / np.float32(2)
    return middles


def rope_tables(
    config: TransformerConfig, geometry: Geometry, dtype: DTypeLike, keyframes: Array | None = None
) -> RopeTables:
    """All rotary tables of a run, rounded to `dtype`.

    Args:
        config: Sizes.
        geometry: Size of the latents.
        dtype: What cos and sin are rounded to.
        keyframes: Pixel frame of each appended keyframe, `[K]` int32; their tokens follow those of the video.
    """
    heads, dim = config.num_attention_heads, config.audio_cross_attention_dim
    theta = config.positional_embedding_theta
    (max_audio,) = config.audio_positional_embedding_max_pos
    max_cross = max(config.positional_embedding_max_pos[0], max_audio)
    audio_freqs, cross_freqs = rope.frequencies(config.audio_dim, 1, theta), rope.frequencies(dim, 1, theta)
    heard = audio_seconds(geometry.audio)

    def cross(seconds: Float32) -> rope.Tables:
        return rope.rows(rope.axis_angles(seconds, max_cross, cross_freqs), dtype)

    own = rope.rows(rope.axis_angles(heard, max_audio, audio_freqs), dtype)
    return RopeTables(
        _video_tables(config, geometry, dtype, keyframes),
        rope.grid([own], config.audio_dim, heads),
        _per_token(rope.grid([_times(geometry, keyframes, cross)], dim, heads), geometry.cells),
        rope.grid([cross(heard)], dim, heads),
    )


def _video_tables(
    config: TransformerConfig, geometry: Geometry, dtype: DTypeLike, keyframes: Array | None
) -> rope.Tables:
    """Tables of the video tokens' self-attention."""
    freqs = rope.frequencies(config.video_dim, 3, config.positional_embedding_theta)
    max_time, max_height, max_width = config.positional_embedding_max_pos

    def axis(positions: Float32, longest: float) -> rope.Tables:
        return rope.rows(rope.axis_angles(positions, longest, freqs), dtype)

    times = _times(geometry, keyframes, lambda seconds: axis(seconds, max_time))
    across = axis(pixels(geometry.height), max_height), axis(pixels(geometry.width), max_width)
    return rope.grid([times, *across], config.video_dim, config.num_attention_heads)


def _times(
    geometry: Geometry, keyframes: Array | None, table: Callable[[Float32], rope.Tables]
) -> rope.Tables:
    """Rows of the latent frames, and of the keyframes after them.

    Every frame that a keyframe can be at has its row, made in f64 like the others, and the program picks:
    angles grow to thousands of radians, and no accelerator's sine is exact there.
    """
    grid = table(frame_seconds(geometry.frames, geometry.fps))
    if keyframes is None:
        return grid
    return rope.join(grid, rope.take(table(keyframe_seconds(geometry.pixel_frames, geometry.fps)), keyframes))


def _per_token(per_frame: rope.Tables, cells: int) -> rope.Tables:
    """Repeat the tables of a frame for each of its cells."""
    cos, sin = (jnp.repeat(table, cells, axis=0) for table in per_frame)
    return cos, sin
