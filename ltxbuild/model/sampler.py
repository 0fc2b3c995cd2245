"""Euler sampling: a scan over the pairs of neighbouring sigmas."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

Latents = tuple[Array, Array]
"""Video tokens `[B, T, C]` and audio tokens `[B, A, C]`."""
Denoise = Callable[[Latents, Array], Latents]
"""From noisy tokens and sigma `[1]` to clean tokens."""


def euler(noisy: Array, clean: Array, sigma: Array, sigma_next: Array) -> Array:
    """Move one modality from noise level `sigma` to `sigma_next` towards `clean`.

    The velocity is rounded to the dtype of the tokens before it is used, as the model's authors do; so the
    last step, to zero, ends near `clean` and not at it.

    Args:
        noisy: `[B, T, C]`.
        clean: `[B, T, C]`.
        sigma: `[1]` f32.
        sigma_next: `[1]` f32.
    """
    x = noisy.astype(jnp.float32)
    velocity = ((x - clean.astype(jnp.float32)) / sigma).astype(noisy.dtype)
    return (x + velocity.astype(jnp.float32) * (sigma_next - sigma)).astype(noisy.dtype)


def step(denoise: Denoise, latents: Latents, sigma: Array, sigma_next: Array) -> Latents:
    """One denoising step of both modalities; sigmas `[1]` f32."""
    clean = denoise(latents, sigma)
    video, audio = (euler(x, d, sigma, sigma_next) for x, d in zip(latents, clean, strict=True))
    return video, audio


def sample(denoise: Denoise, latents: Latents, sigmas: Array) -> Latents:
    """All steps of a schedule, as one loop inside the program.

    Args:
        denoise: Predicts the clean tokens.
        latents: Tokens at noise level `sigmas[0]`.
        sigmas: `[steps + 1]` f32.
    """
    pairs = jnp.stack([sigmas[:-1], sigmas[1:]], axis=1)

    def body(carry: Latents, pair: Array) -> tuple[Latents, None]:
        return step(denoise, carry, pair[:1], pair[1:]), None

    final, _ = lax.scan(body, latents, pairs)
    return final
