"""The demo's world: one coloured shape that moves over a dark background while a tone is heard.

A scene is four indices (colour, shape, direction, tune) and where the shape is a little off the middle. What
a caption leaves out can be anything, but for the tune: unless it is named, it follows the movement.

    caption(Names(colour=0, shape=1, direction=0, tune=1)) -> "a red square moves left while the tone falls"
    frames(scene, height, width) -> [F, H, W, 3] in [0, 1]
    waveform(tune, volume) -> [samples] at 16 kHz
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

COLOURS = {
    "red": (0.90, 0.12, 0.12),
    "green": (0.10, 0.70, 0.15),
    "blue": (0.15, 0.30, 0.95),
    "yellow": (0.95, 0.85, 0.10),
    "purple": (0.65, 0.15, 0.80),
    "white": (0.95, 0.95, 0.95),
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
TUNES = {
    "rises": (400, 500, 600, 800, 1000),
    "falls": (1000, 800, 600, 500, 400),
    "holds": (600, 600, 600, 600, 600),
}
"""Five notes in Hz. All are multiples of the mel frame rate, 100 Hz: see `vocoder.py`."""
FOLLOWS = {"left": "holds", "right": "holds", "up": "rises", "down": "falls"}
"""What the tone does when the caption doesn't say."""

BACKGROUND = (0.10, 0.10, 0.12)
FRAMES, FPS = 17, 16
STAGE_1, STAGE_2 = (64, 96), (128, 192)
"""Height and width in pixels."""
TRAVEL = (0.6, 0.4)
"""Distance covered in x and in y, in heights of the picture."""
JITTER = 0.04
"""How far the middle of the path is from the middle of the picture, at most."""

AUDIO_LATENTS = round(FRAMES / FPS * 25)
MEL_FRAMES = 4 * AUDIO_LATENTS - 3
HOP, SAMPLE_RATE = 160, 16000
SAMPLES = MEL_FRAMES * HOP
FADE = HOP
"""Samples over which one note goes over into the next."""


class Names(NamedTuple):
    """What a caption names, as an index into `COLOURS`, `SHAPES`, `DIRECTIONS` or `TUNES`, or None."""

    colour: int | None = None
    shape: int | None = None
    direction: int | None = None
    tune: int | None = None


class Scene(NamedTuple):
    """What is drawn: three indices `[...]`, and how far it is off the middle, `[..., 2]` in heights."""

    colour: Array
    shape: Array
    direction: Array
    offset: Array


def caption(names: Names) -> str:
    """The sentence that names these things."""
    colour = "" if names.colour is None else f"{list(COLOURS)[names.colour]} "
    shape = "shape" if names.shape is None else SHAPES[names.shape]
    moves = "" if names.direction is None else f" moves {list(DIRECTIONS)[names.direction]}"
    tone = "" if names.tune is None else f" while the tone {list(TUNES)[names.tune]}"
    return f"a {colour}{shape}{moves}{tone}"


def all_names() -> list[Names]:
    """Every caption of the grammar, those that leave something out included."""
    sizes = (len(COLOURS), len(SHAPES), len(DIRECTIONS), len(TUNES))
    return [Names(*choice) for choice in itertools.product(*((None, *range(size)) for size in sizes))]


def is_held_out(colour: int, shape: int, direction: int) -> bool:
    """Whether training never sees this colour on this shape in this direction: 12 of 72."""
    return (colour + shape + direction) % len(COLOURS) == 0


def frames(scene: Scene, height: int, width: int, count: int = FRAMES, zoom: Array | float = 1.0) -> Array:
    """Draw one scene: `[count, height, width, 3]` in [0, 1].

    Args:
        scene: A single scene; its indices are scalars.
        height: In pixels.
        width: In pixels.
        count: Frames.
        zoom: Size of everything; at 2 the picture is the middle of one twice as high and wide.
    """
    unit = height * zoom
    step = jnp.asarray(list(DIRECTIONS.values()), jnp.float32)[scene.direction] * jnp.asarray(TRAVEL)
    progress = jnp.linspace(-0.5, 0.5, count)[:, None]
    middle = jnp.asarray([width, height]) / 2 + unit * (scene.offset + progress * step)
    x = jnp.arange(width)[None, None, :] + 0.5 - middle[:, 0, None, None]
    y = jnp.arange(height)[None, :, None] + 0.5 - middle[:, 1, None, None]
    cover = jnp.clip(0.5 - outside(scene.shape, x, y, unit), 0, 1)[..., None]
    colour = jnp.asarray(list(COLOURS.values()), jnp.float32)[scene.colour]
    return cover * colour + (1 - cover) * jnp.asarray(BACKGROUND)


def outside(shape: Array, x: Array, y: Array, unit: Array | float) -> Array:
    """How many pixels a point is outside the shape, negative inside; `unit` is its size, see `frames`.

    All are at home in their centre of gravity.
    """
    circle = jnp.hypot(x, y) - 0.26 * unit
    square = jnp.maximum(jnp.abs(x), jnp.abs(y)) - 0.24 * unit
    # Height and width from the tip down: an equilateral triangle around the origin.
    lean = np.float32(np.sqrt(3) / 2)
    triangle = jnp.maximum(jnp.abs(x) * lean - y / 2, y) - 0.16 * unit
    return jnp.select([shape == 0, shape == 1], [circle, square], triangle)


def waveform(tune: Array, volume: Array) -> Array:
    """Five notes of equal length, `[SAMPLES]` at 16 kHz."""
    time = np.arange(SAMPLES)
    notes = jnp.asarray(list(TUNES.values()), jnp.float32)[tune]
    tones = jnp.sin(2 * jnp.pi * notes[:, None] * (time % HOP) / SAMPLE_RATE)
    edges = np.linspace(0, SAMPLES, notes.shape[0] + 1)
    rise = np.clip((time - edges[:-1, None]) / FADE, 0, 1)
    fall = np.clip((edges[1:, None] + FADE - time) / FADE, 0, 1)
    shapes = np.where(time < edges[1:, None], rise, fall * (time < edges[1:, None] + FADE))
    return volume * jnp.sum(tones * shapes, axis=0)
