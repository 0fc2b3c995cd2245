"""Where tokens are: seconds and pixels of each latent cell, and the rotary tables made from them."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from numpy.typing import NDArray

from ltxbuild.model import rope
from ltxbuild.model.config import TransformerConfig

Float32 = NDArray[np.float32]

FRAMES_PER_LATENT = 8
PIXELS_PER_LATENT = 32
MELS_PER_LATENT = 4
MEL_HOP, SAMPLE_RATE = 160, 16000
"""Samples between mel frames, and samples per second, of the audio autoencoder."""


class Geometry(NamedTuple):
    """Size of the latents of one run.

    Attributes:
        frames: Latent frames.
        height: Latent rows.
        width: Latent columns.
        audio: Audio latents.
        fps: Frames per second of the decoded video.
    """

    frames: int
    height: int
    width: int
    audio: int
    fps: float

    @property
    def tokens(self) -> int:
        """Video tokens."""
        return self.frames * self.height * self.width


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
    edges = np.maximum(np.arange(frames + 1) * FRAMES_PER_LATENT + 1 - FRAMES_PER_LATENT, 0)
    return _middles(edges.astype(np.float32) / np.float32(fps))


def pixels(cells: int) -> Float32:
    """Middle of each latent row or column in pixels, `[cells]`."""
    return _middles((np.arange(cells + 1) * PIXELS_PER_LATENT).astype(np.float32))


def audio_seconds(latents: int) -> Float32:
    """Middle of each audio latent in seconds, `[latents]`; the first latent holds a single mel frame."""
    mels = np.maximum(np.arange(latents + 1) * MELS_PER_LATENT + 1 - MELS_PER_LATENT, 0)
    return _middles(mels.astype(np.float32) * np.float32(MEL_HOP) / np.float32(SAMPLE_RATE))


def _middles(edges: Float32) -> Float32:
    middles: Float32 = (edges[:-1] + edges[1:]) / np.float32(2)
    return middles


def rope_tables(config: TransformerConfig, geometry: Geometry, dtype: DTypeLike) -> RopeTables:
    """All rotary tables of a run, rounded to `dtype`."""
    heads, theta = config.num_attention_heads, config.positional_embedding_theta
    video_freqs = rope.frequencies(config.video_dim, 3, theta)
    audio_freqs = rope.frequencies(config.audio_dim, 1, theta)
    cross_freqs = rope.frequencies(config.audio_cross_attention_dim, 1, theta)
    max_time, max_height, max_width = config.positional_embedding_max_pos
    (max_audio,) = config.audio_positional_embedding_max_pos
    max_cross = max(max_time, max_audio)
    time = frame_seconds(geometry.frames, geometry.fps)
    heard = audio_seconds(geometry.audio)
    video = [
        rope.axis_angles(time, max_time, video_freqs),
        rope.axis_angles(pixels(geometry.height), max_height, video_freqs),
        rope.axis_angles(pixels(geometry.width), max_width, video_freqs),
    ]
    cross_video = rope.axis_angles(time, max_cross, cross_freqs)
    cross_audio = rope.axis_angles(heard, max_cross, cross_freqs)
    cross_dim = config.audio_cross_attention_dim
    per_frame = rope.tables([cross_video], cross_dim, heads, dtype)
    return RopeTables(
        rope.tables(video, config.video_dim, heads, dtype),
        rope.tables([rope.axis_angles(heard, max_audio, audio_freqs)], config.audio_dim, heads, dtype),
        _per_token(per_frame, geometry.height * geometry.width),
        rope.tables([cross_audio], cross_dim, heads, dtype),
    )


def _per_token(per_frame: rope.Tables, cells: int) -> rope.Tables:
    """Repeat the tables of a frame for each of its cells."""
    cos, sin = (jnp.repeat(table, cells, axis=0) for table in per_frame)
    return cos, sin
