"""What reads colour, shape, direction and pitch off a video, held against the world that it is drawn from."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import av
import jax
import numpy as np
import pytest
from demo_reading import Seen, colour, direction, read, shape, tune
from numpy.lib.stride_tricks import sliding_window_view

from tools.train_demo import world

HELD_OUT = [
    names
    for names in product(range(len(world.COLOURS)), range(len(world.SHAPES)), range(len(world.DIRECTIONS)))
    if world.is_held_out(*names)
]


@pytest.mark.parametrize("size", [world.STAGE_1, world.STAGE_2], ids=str)
def test_pictures_are_read(size: tuple[int, int]) -> None:
    """Every held-out scene, off the middle."""
    draw = jax.jit(lambda scene: world.frames(scene, *size))
    for names in HELD_OUT:
        frames = np.asarray(draw(world.Scene(*names, np.asarray([0.05, -0.04], np.float32))))
        wanted = list(world.COLOURS)[names[0]], world.SHAPES[names[1]], list(world.DIRECTIONS)[names[2]]
        assert (colour(frames), shape(frames), direction(frames)) == wanted


@pytest.mark.parametrize("index", range(len(world.SHAPES)))
def test_soft_noisy_shapes_are_read(index: int) -> None:
    """Each pixel the mean of 7 x 7, and noise: what a decoder may leave of an edge."""
    scene = world.Scene(1, index, 3, np.asarray([-0.03, 0.02], np.float32))
    frames = np.asarray(world.frames(scene, *world.STAGE_1))
    padded = np.pad(frames, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="edge")
    soft = sliding_window_view(padded, (7, 7), axis=(1, 2)).mean(axis=(-2, -1))
    noise = 0.05 * np.random.Generator(np.random.Philox(0)).standard_normal(soft.shape)
    assert shape((soft + noise).astype(np.float32)) == world.SHAPES[index]


@pytest.mark.parametrize("index", range(len(world.TUNES)))
def test_tunes_are_read(index: int) -> None:
    assert tune(np.asarray(world.waveform(index, 0.4)), world.SAMPLE_RATE) == list(world.TUNES)[index]


def test_nothing_is_read_where_nothing_is() -> None:
    still = np.broadcast_to(np.asarray(world.BACKGROUND, np.float32), (17, 64, 96, 3))
    hiss = 0.001 * np.random.Generator(np.random.Philox(0)).standard_normal(48000).astype(np.float32)
    assert Seen(colour(still), shape(still), direction(still), tune(hiss, 48000)) == Seen(
        None, None, None, None
    )


def test_a_shape_that_stands_still_goes_nowhere() -> None:
    frames = np.asarray(world.frames(world.Scene(0, 0, 0, np.zeros(2, np.float32)), *world.STAGE_1))
    assert direction(np.broadcast_to(frames[:1], frames.shape)) is None


def test_files_are_read(tmp_path: Path) -> None:
    """As H.264 and AAC, which is what `ltx-run` writes."""
    frames = np.asarray(world.frames(world.Scene(0, 1, 2, np.zeros(2, np.float32)), *world.STAGE_1))
    sound = np.asarray(world.waveform(1, 0.4))
    with av.open(str(tmp_path / "x.mp4"), "w") as file:
        video = file.add_stream("libx264", rate=world.FPS)
        video.height, video.width = world.STAGE_1
        audio = file.add_stream("aac", rate=world.SAMPLE_RATE, layout="mono")
        for picture in np.round(frames * 255).astype(np.uint8):
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        samples = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        samples.rate = world.SAMPLE_RATE
        file.mux(audio.encode(samples))
        file.mux(video.encode() + audio.encode())
    assert read(tmp_path / "x.mp4") == Seen("red", "square", "up", "falls")
