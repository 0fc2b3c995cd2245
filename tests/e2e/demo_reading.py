"""Reads off a finished video what it shows and how it sounds, with simple image and spectrum code."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import av
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tools.train_demo.world import BACKGROUND, COLOURS, DIRECTIONS, SHAPES, outside

Float32 = NDArray[np.float32]
STILL = 0.04
"""Way in heights of the picture below which nothing moved."""
HELD = 60.0
"""Hertz from the first to the last note below which the pitch holds."""
LOWEST, HIGHEST = 250.0, 1300.0


class Seen(NamedTuple):
    """What a video shows; None where nothing can be read."""

    colour: str | None
    shape: str | None
    direction: str | None
    tune: str | None


def read(path: Path) -> Seen:
    """Read a video file."""
    frames, (sound, rate) = load_frames(path), load_sound(path)
    return Seen(colour(frames), shape(frames), direction(frames), tune(sound, rate))


def load_frames(path: Path) -> Float32:
    """Frames `[F, H, W, 3]` in [0, 1]."""
    with av.open(str(path)) as file:
        shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    return np.stack(shown).astype(np.float32) / 255


def load_sound(path: Path) -> tuple[Float32, int]:
    """The mean of the channels, and samples per second."""
    with av.open(str(path)) as file:
        rate = file.streams.audio[0].rate
        pieces = [frame.to_ndarray() for frame in file.decode(audio=0)]
    return np.concatenate(pieces, axis=1).mean(axis=0).astype(np.float32), rate


def contrast(frames: Float32) -> Float32:
    """How far each pixel is from the background, `[F, H, W]`."""
    return np.abs(frames - np.asarray(BACKGROUND, np.float32)).max(axis=-1)


def colour(frames: Float32) -> str | None:
    """The named colour that the clearest pixels are nearest to."""
    clear = contrast(frames)
    if clear.max() < 0.2:
        return None
    pixels = frames[clear > 0.8 * np.quantile(clear, 0.99)]
    mean = pixels.mean(axis=0)
    return min(COLOURS, key=lambda name: float(np.sum((mean - np.asarray(COLOURS[name])) ** 2)))


def shape(frames: Float32) -> str | None:
    """The shape that, drawn at the place and with the area of what is seen, overlaps most with it.

    Frames at both ends, where it may be cut off, don't count.
    """
    overlaps = [_overlaps(picture) for picture in contrast(frames)[3:-3] if picture.max() > 0.2]
    return SHAPES[int(np.argmax(np.sum(overlaps, axis=0)))] if overlaps else None


def _overlaps(picture: Float32) -> Float32:
    """Intersection over union with each of `SHAPES`."""
    seen = picture > 0.5 * np.quantile(picture, 0.99)
    middle = _middle(seen)
    assert middle is not None
    y, x = np.indices(seen.shape)
    ideal = _drawn(x - middle[0], y - middle[1], np.sqrt(seen.sum() / _areas())[:, None, None])
    return np.asarray((seen & ideal).sum(axis=(1, 2)) / (seen | ideal).sum(axis=(1, 2)), np.float32)


@cache
def _areas() -> Float32:
    """Areas of the shapes at size 1, counted in pixels."""
    y, x = np.indices((400, 400)) - 199.5
    return np.asarray(_drawn(x, y, 400.0).mean(axis=(1, 2)), np.float32)


def _drawn(x: Float32, y: Float32, unit: Float32 | float) -> NDArray[np.bool_]:
    """Where each shape is when its centre of gravity is at (0, 0), `[shapes, H, W]`."""
    return np.asarray(outside(jnp.arange(len(SHAPES))[:, None, None], x, y, unit)) < 0


def direction(frames: Float32) -> str | None:
    """Where the middle of the shape goes from the first quarter to the last."""
    weight = np.where(contrast(frames) > 0.2, contrast(frames), 0)
    quarter = len(frames) // 4
    first, last = (_middle(part.sum(axis=0)) for part in (weight[:quarter], weight[-quarter:]))
    if first is None or last is None:
        return None
    way = (last - first) / frames.shape[1]
    if np.abs(way).max() < STILL:
        return None
    return max(DIRECTIONS, key=lambda name: float(np.dot(way, DIRECTIONS[name])))


def _middle(weight: Float32) -> Float32 | None:
    """Centre of gravity (x, y) in pixels."""
    total = weight.sum()
    if total == 0:
        return None
    y, x = np.indices(weight.shape)
    return np.asarray([(weight * x).sum() / total, (weight * y).sum() / total], np.float32)


def tune(sound: Float32, rate: int) -> str | None:
    """Whether the strongest frequency rises, falls or holds."""
    notes = [_pitch(part, rate) for part in np.array_split(sound, 5)]
    if None in notes:
        return None
    way = notes[-1] - notes[0]  # type: ignore[operator]
    return "holds" if abs(way) < HELD else "rises" if way > 0 else "falls"


def _pitch(sound: Float32, rate: int) -> float | None:
    """The strongest frequency in the middle of a note in Hz; None in silence."""
    middle = sound[len(sound) // 4 : -(len(sound) // 4)]
    if np.sqrt(np.mean(middle**2)) < 0.02:
        return None
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 15))
    frequency = np.fft.rfftfreq(1 << 15, 1 / rate)
    spectrum[(frequency < LOWEST) | (frequency > HIGHEST)] = 0
    return float(frequency[np.argmax(spectrum)])
