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


def step(denoise: Denoise, state: Latents, sigma: Array, following: Array) -> Latents:
    """Predict once, then move both modalities along the sigmas that follow.

    Args:
        denoise: Predicts the clean tokens.
        state: Tokens at noise level `sigma`.
        sigma: `[1]` f32.
        following: `[stride]` f32. After the first move the prediction is used again; where a sigma repeats
            the one before it (a schedule filled up at its end), nothing moves.
    """
    clean = denoise(state, sigma)
    state = _moved(state, clean, sigma, following[:1])
    for index in range(1, following.shape[0]):
        now, then = following[index - 1 : index], following[index : index + 1]
        moved = _moved(state, clean, now, then)
        state = jnp.where(now == then, state[0], moved[0]), jnp.where(now == then, state[1], moved[1])
    return state


def _moved(state: Latents, clean: Latents, sigma: Array, sigma_next: Array) -> Latents:
    video, audio = (euler(x, d, sigma, sigma_next) for x, d in zip(state, clean, strict=True))
    return video, audio


def sample(denoise: Denoise, state: Latents, sigmas: Array, stride: int = 1) -> Latents:
    """All steps of a schedule, as one loop inside the program.

    Args:
        denoise: Predicts the clean tokens.
        state: Tokens at noise level `sigmas[0]`.
        sigmas: `[steps + 1]` f32.
        stride: Predict at every `stride`-th step only.
    """

    def body(carry: Latents, window: Array) -> tuple[Latents, None]:
        return step(denoise, carry, window[:1], window[1:]), None

    final, _ = lax.scan(body, state, windows(sigmas, stride))
    return final


def windows(sigmas: Array, stride: int) -> Array:
    """Neighbouring sigmas that share a prediction, `[calls, stride + 1]`; the last one repeats at the end."""
    steps = sigmas.shape[0] - 1
    calls = -(-steps // stride)
    filled = jnp.pad(sigmas, (0, calls * stride - steps), mode="edge")
    ends = [filled[i : i + (calls - 1) * stride + 1 : stride] for i in range(stride + 1)]
    return jnp.stack(ends, axis=1)
