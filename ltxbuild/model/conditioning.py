"""Images that a video is made from: the first frame, and keyframes at later frames.

An image for the first frame stands for the tokens of the first latent frame. A keyframe adds tokens of its
own after those of the video, which are dropped when the stage is done. Given tokens are noised and denoised
less than the others, or not at all.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from ltxbuild.model import adaln, latents
from ltxbuild.model.adaln import Timesteps
from ltxbuild.model.geometry import Geometry


class Images(NamedTuple):
    """What a stage's slots for images hold: slot 0 is the first frame's, the others are for keyframes.

    Attributes:
        latents: Per slot the image's latent `[1, C, 1, H, W]`.
        frame: Pixel frame of each image, `[slots]` int32; negative in an empty slot.
        left: How much of the noise level is left where the image is, 1 - strength, `[slots]` f32.
    """

    latents: tuple[Array, ...]
    frame: Array
    left: Array


class Given(NamedTuple):
    """Images as tokens.

    Attributes:
        clean: The images' tokens where they are, zeros elsewhere, `[1, T, C]`.
        left: Share of the noise level of each kind of token, `[N]` f32; 1 for those that are free.
        level: Kind of each token, `[T]` int32.
        keyframes: Pixel frame of each keyframe, `[K]` int32; negative where there is none.
        visible: Tokens that are not those of a missing keyframe, `[T]` bool; None without slots for any.
    """

    clean: Array
    left: Array
    level: Array
    keyframes: Array
    visible: Array | None

    @property
    def mask(self) -> Array:
        """Share of the noise level of each token, `[1, T, 1]`."""
        return adaln.spread(self.left[None, :, None], self.level)


def given(images: Images, geometry: Geometry, dtype: DTypeLike) -> Given:
    """Lay images out as tokens.

    The share of a first frame is f32, that of a keyframe is rounded to `dtype` first, as the model's authors
    do.
    """
    info = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    rounded = lax.reduce_precision(images.left[1:], info.nexp, info.nmant)
    left = jnp.where(images.frame < 0, 1, jnp.concatenate([images.left[:1], rounded]))
    first, *later = (latents.patchify_video(latent).astype(dtype) for latent in images.latents)
    free = jnp.zeros((1, geometry.tokens - geometry.cells, first.shape[-1]), dtype)
    kinds = [1, *([0] * (geometry.frames - 1)), *range(2, len(later) + 2)]
    keyframes = images.frame[1:]
    return Given(
        jnp.concatenate([first, free, *later], axis=1),
        jnp.concatenate([jnp.ones(1, jnp.float32), left]),
        jnp.asarray(np.repeat(kinds, geometry.cells), jnp.int32),
        keyframes,
        _visible(keyframes, geometry) if later else None,
    )


def _visible(keyframes: Array, geometry: Geometry) -> Array:
    free = jnp.ones(geometry.tokens, jnp.bool_)
    return jnp.concatenate([free, jnp.repeat(keyframes >= 0, geometry.cells)])


def noised(state: Given, noisy: Array) -> Array:
    """The tokens a stage starts from: `noisy` f32 `[B, T, C]` where free, nearer to the image where given."""
    return latents.interpolate(state.clean, noisy, state.mask).astype(state.clean.dtype)


def blended(state: Given, clean: Array) -> Array:
    """A prediction `[B, T, C]`, replaced by the image as far as it is given."""
    kept = state.clean.astype(jnp.float32) * (1 - state.mask)
    return (clean.astype(jnp.float32) * state.mask + kept).astype(clean.dtype)


def timesteps(state: Given, sigma: Array) -> Timesteps:
    """Noise levels of the tokens in a step at `sigma` `[1]`."""
    return Timesteps(sigma, sigma[:, None] * state.left[None, :], state.level)
