"""Latents as grids and as tokens, and how noise is mixed in."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from ltxbuild.model.geometry import Geometry

MEL_CELLS = 16
"""Frequency cells of an audio latent; with 8 channels they make the 128 channels of an audio token."""


def patchify_video(latent: Array) -> Array:
    """`[B, C, F, H, W]` to tokens `[B, F * H * W, C]`, width fastest."""
    batch, channels = latent.shape[:2]
    return jnp.moveaxis(latent.reshape(batch, channels, -1), 1, 2)


def unpatchify_video(tokens: Array, geometry: Geometry) -> Array:
    """Tokens `[B, F * H * W, C]` to `[B, C, F, H, W]`."""
    batch, _, channels = tokens.shape
    shape = (batch, channels, geometry.frames, geometry.height, geometry.width)
    return jnp.moveaxis(tokens, 2, 1).reshape(shape)


def patchify_audio(latent: Array) -> Array:
    """`[B, C, T, mel]` to tokens `[B, T, C * mel]`, mel fastest."""
    batch, _, frames, _ = latent.shape
    return jnp.moveaxis(latent, 1, 2).reshape(batch, frames, -1)


def unpatchify_audio(tokens: Array) -> Array:
    """Tokens `[B, T, C * 16]` to `[B, C, T, 16]`."""
    batch, frames, width = tokens.shape
    return jnp.moveaxis(tokens.reshape(batch, frames, width // MEL_CELLS, MEL_CELLS), 2, 1)


def mix_noise(start: Array, noise: Array, amount: Array) -> Array:
    """Interpolate from `start` to `noise` in f32; the result has the dtype of `start`."""
    return interpolate(start, noise, amount).astype(start.dtype)


def interpolate(start: Array, end: Array, amount: Array) -> Array:
    """Interpolate in f32.

    Counted from the nearer end, so that an amount of 0 or 1 gives that end exactly.
    """
    a, b, w = (x.astype(jnp.float32) for x in (start, end, amount))
    return jnp.where(w < 0.5, a + w * (b - a), b - (b - a) * (1 - w))
