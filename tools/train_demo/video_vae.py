"""The video autoencoder: 32 x 32 pixels of 8 frames become one token of 48 numbers.

The encoder sees no frame that comes later, so that an image is a video of one frame.

Left to themselves, encoder and decoder find nothing to agree on for hundreds of steps: the best answer to a
code that says nothing is the background. So both get a model to learn from, the principal components of a
coarse picture of every token's pixels. The encoder learns to give these codes; the decoder, which can draw
the coarse picture from the start (`mosaic.py`), learns to draw the full one. The two never meet in training,
and what the transformer learns from are the codes, so that nothing waits for the autoencoder.

Noise on the codes makes the decoder forgiving; it takes the place of a variational autoencoder's variance.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from ltxbuild.model import video_decoder, video_encoder
from ltxbuild.model.config import VideoVaeConfig
from ltxbuild.model.params import ParamTable
from tools.train_demo import world
from tools.train_demo.loop import Run, train
from tools.train_demo.mosaic import draw_mosaic
from tools.train_demo.weights import Params, initial

NOISE = 0.2
"""The most noise that a clip's code gets; how much is drawn for each clip."""
SCALES = {r"conv_out": 0.1, r"blocks\.conv2": 0.1}
COARSE = 8
"""Pixels that are averaged along each side, for the codes to learn from."""
BRIGHTNESS = 2.0


class Plan(NamedTuple):
    """How one half is trained: clips per step, frames of each, highest learning rate."""

    steps: int
    batch: int
    frames: int
    rate: float


DECODER = Plan(5000, 2, world.FRAMES, 6e-4)
ENCODER = Plan(2000, 4, 9, 2e-3)


def fit(config: VideoVaeConfig, directory: Path) -> Params:
    """Train both halves; `encoder` and `decoder` of the result share the latents' statistics."""
    codes = principal_codes(config.latent_channels)
    return {
        "decoder": fit_decoder(config, codes, directory),
        "encoder": fit_encoder(config, codes, directory),
    }


def fit_decoder(config: VideoVaeConfig, codes: Codes, directory: Path) -> Params:
    """Train the decoder on codes, from weights that draw the coarse picture."""
    params = start(video_decoder.params(config), codes)
    draw_mosaic(params, np.asarray(codes.mean), np.asarray(codes.components))
    run = Run("video_decoder", directory, DECODER.steps, DECODER.rate)
    return train(run, params, lambda p, key: decoder_loss(p, key, config, codes))


def fit_encoder(config: VideoVaeConfig, codes: Codes, directory: Path) -> Params:
    """Train the encoder to give the codes."""
    run = Run("video_encoder", directory, ENCODER.steps, ENCODER.rate)
    params = start(video_encoder.params(config), codes)
    return train(run, params, lambda p, key: encoder_loss(p, key, config, codes))


def start(table: ParamTable, codes: Codes) -> Params:
    """Parameters of a half before training."""
    deviation = np.asarray(codes.deviation)
    statistics = {"mean": np.zeros_like(deviation), "std": deviation}
    return initial(table, 0, SCALES) | {"statistics": statistics}


class Codes(NamedTuple):
    """An affine map from the coarse pixels of a token to its code, and back.

    Attributes:
        mean: Of the coarse pixels, `[96]`.
        weight: Code by coarse pixels, `[96, C]`.
        components: Coarse pixels by code, `[C, 96]`.
        deviation: Of all codes together, `[C]`: what the checkpoint has as statistics of the latents.
    """

    mean: Array
    weight: Array
    components: Array
    deviation: Array


def principal_codes(channels: int) -> Codes:
    """The codes that encoder and decoder learn from: principal components, the small ones enlarged a little.

    Brightness counts more than colour, for shapes are in it.
    """
    keys = jax.random.split(jax.random.key(2), 600)
    draw = jax.jit(jax.vmap(lambda key: coarse(_clip(key))))
    pixels = np.asarray(draw(keys), np.float64).reshape(-1, 6 * (32 // COARSE) ** 2)
    weighed = np.kron(np.eye(pixels.shape[1] // 3), _brightness())
    values, vectors = np.linalg.eigh(np.cov(weighed @ pixels.T))
    values, vectors = values[::-1][:channels], vectors[:, ::-1][:, :channels]
    # The sign of an eigenvector is free; this choice doesn't depend on the machine.
    vectors *= np.sign(vectors[np.argmax(np.abs(vectors), axis=0), np.arange(channels)])
    forth = weighed.T @ vectors * values**-0.25
    back = (np.linalg.solve(weighed, vectors) * values**0.25).T
    # Exact in bf16, as which the checkpoint holds it.
    deviation = jnp.full(channels, np.sqrt(np.mean(values**0.5)), jnp.bfloat16)
    return Codes(*(jnp.asarray(x, jnp.float32) for x in (pixels.mean(axis=0), forth, back, deviation)))


def _brightness() -> NDArray[np.float64]:
    """A symmetric map of a colour that makes its grey part `BRIGHTNESS` times as large."""
    grey = np.full((3, 3), 1 / 3)
    return np.eye(3) + (BRIGHTNESS - 1) * grey


def model_code(clip: Array, codes: Codes) -> Array:
    """Frames `[F, H, W, 3]` to their code `[1, C, f, h, w]`."""
    return jnp.moveaxis((coarse(clip) - codes.mean) @ codes.weight, -1, 0)[None]


def normalised(code: Array, codes: Codes) -> Array:
    """A code `[1, C, f, h, w]` as the transformer knows it."""
    return code / codes.deviation[:, None, None, None]


def coarse(clip: Array) -> Array:
    """Frames `[F, H, W, 3]` to averages `[f, h, w, 96]`: 4 x 4 squares of each cell in both its halves.

    The first cell holds one frame, which stands for both halves.
    """
    frames, height, width, _ = clip.shape
    squares = clip.reshape(frames, height // COARSE, COARSE, width // COARSE, COARSE, 3).mean((2, 4))
    later = squares[1:].reshape(-1, 2, 4, *squares.shape[1:]).mean(2)
    halves = jnp.concatenate([jnp.stack([squares[0], squares[0]])[None], later])
    side = 32 // COARSE
    cells = halves.reshape(len(halves), 2, height // 32, side, width // 32, side, 3)
    return cells.transpose(0, 2, 4, 1, 3, 5, 6).reshape(len(halves), height // 32, width // 32, -1)


def decoder_loss(params: Params, key: Array, config: VideoVaeConfig, codes: Codes) -> Array:
    """Distance between frames and what the decoder draws from their noisy codes."""

    def one(key: Array) -> Array:
        draw, noise, level = jax.random.split(key, 3)
        clip = _clip(draw, DECODER.frames)
        code = normalised(model_code(clip, codes), codes)
        noisy = code + NOISE * jax.random.uniform(level) * jax.random.normal(noise, code.shape)
        error = video_decoder.decode(params, noisy, config) - clip
        return jnp.mean(jnp.abs(error)) + 5 * jnp.mean(error**2)

    return jnp.mean(jax.vmap(one)(jax.random.split(key, DECODER.batch)))


def encoder_loss(params: Params, key: Array, config: VideoVaeConfig, codes: Codes) -> Array:
    """Distance between the encoder's codes and the model's."""

    def one(key: Array) -> Array:
        clip = _clip(key, ENCODER.frames)
        wrong = encode(params, clip, config) - normalised(model_code(clip, codes), codes)
        return jnp.mean(wrong**2)

    return jnp.mean(jax.vmap(one)(jax.random.split(key, ENCODER.batch)))


def _clip(key: Array, frames: int = world.FRAMES) -> Array:
    """The first frames of a random scene, half of the time a part cut from a picture of twice the size."""
    draw, zoom = jax.random.split(key)
    scale = jnp.where(jax.random.uniform(zoom) < 0.5, 1.0, 2.0)
    return world.frames(_anywhere(draw), *world.STAGE_1, zoom=scale)[:frames]


def _anywhere(key: Array) -> world.Scene:
    """A scene with the shape anywhere in the picture: the autoencoder shall know no grammar."""
    colour, shape, direction, place = jax.random.split(key, 4)
    return world.Scene(
        jax.random.randint(colour, (), 0, len(world.COLOURS)),
        jax.random.randint(shape, (), 0, len(world.SHAPES)),
        jax.random.randint(direction, (), 0, len(world.DIRECTIONS)),
        jax.random.uniform(place, (2,), minval=-1, maxval=1) * jnp.asarray([0.35, 0.2]),
    )


def encode(params: Params, clip: Array, config: VideoVaeConfig) -> Array:
    """Frames `[F, H, W, 3]` in [0, 1] to their normalised latent `[1, C, f, h, w]`."""
    return video_encoder.encode(params, jnp.moveaxis(clip, -1, 0)[None] * 2 - 1, config)
