"""What transformer and upsampler learn from: the normalised codes of scenes and of tunes, as tokens."""

from __future__ import annotations

import itertools
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ltxbuild.components import ModelConfig
from ltxbuild.model.geometry import FRAME_STRIDE, PIXEL_STRIDE, Geometry
from ltxbuild.model.latents import patchify_audio, patchify_video
from tools.train_demo import audio_vae, video_vae, world
from tools.train_demo.mel import log_mel

PER_SCENE = 24
"""Latents of each colour, shape and direction: the offset differs."""
PER_TUNE = 32

SCENES = tuple(
    itertools.product(range(len(world.COLOURS)), range(len(world.SHAPES)), range(len(world.DIRECTIONS)))
)
SEEN = tuple(index for index, scene in enumerate(SCENES) if not world.is_held_out(*scene))
"""Scenes that training sees."""


class Data(NamedTuple):
    """Normalised tokens.

    Attributes:
        small: Videos of stage 1, `[scenes, PER_SCENE, T, C]`.
        large: The same videos at the size of stage 2, `[scenes, PER_SCENE, 4 T, C]`.
        sound: `[tunes, PER_TUNE, A, Ca]`.
    """

    small: Array
    large: Array
    sound: Array


def make(config: ModelConfig, aligned: bool = False) -> Data:
    """Draw everything and take its codes, which are what the encoders learn to give.

    Args:
        config: Sizes of the model.
        aligned: Whether scenes that differ in colour only are off the middle by the same.
    """
    codes = video_vae.principal_codes(config.ltx.vae.latent_channels)
    offsets = jnp.asarray(_offsets(aligned))

    def videos(size: tuple[int, int]) -> Array:
        def one(scene: Array, offset: Array) -> Array:
            latent = video_vae.model_code(
                world.frames(world.Scene(scene[0], scene[1], scene[2], offset), *size), codes
            )
            return patchify_video(video_vae.normalised(latent, codes))[0]

        # Scene after scene: the frames of all would take 14 GB.
        every = jax.jit(lambda pairs: lax.map(lambda pair: jax.vmap(partial(one, pair[0]))(pair[1]), pairs))
        tokens: Array = every((jnp.asarray(SCENES), offsets))
        return tokens

    def sound(tune: Array, volume: Array) -> Array:
        mel = log_mel(world.waveform(tune, volume))
        return patchify_audio(audio_vae.normalised(audio_vae.model_code(jnp.stack([mel, mel])[None])))[0]

    volumes = jnp.linspace(*audio_vae.VOLUMES, PER_TUNE)
    tunes = jax.vmap(jax.vmap(sound, in_axes=(None, 0)), in_axes=(0, None))(
        jnp.arange(len(world.TUNES)), volumes
    )
    return Data(videos(world.STAGE_1), videos(world.STAGE_2), tunes)


def geometry(size: tuple[int, int]) -> Geometry:
    """Latent size of the demo's videos at a size in pixels."""
    frames = (world.FRAMES - 1) // FRAME_STRIDE + 1
    return Geometry(frames, size[0] // PIXEL_STRIDE, size[1] // PIXEL_STRIDE, world.AUDIO_LATENTS, world.FPS)


def _offsets(aligned: bool) -> np.ndarray:
    noise = np.random.Generator(np.random.Philox(7))
    offsets = noise.uniform(-world.JITTER, world.JITTER, (len(SCENES), PER_SCENE, 2)).astype(np.float32)
    first = len(SCENES) // len(world.COLOURS)
    return np.tile(offsets[:first], (len(world.COLOURS), 1, 1)) if aligned else offsets
