"""Conversion of frames and sound to bytes."""

from __future__ import annotations

import numpy as np
import pytest

from ltx_run.pictures import i420, pcm16, rgb24


def test_i420_against_doubles() -> None:
    """Planes are those of the matrix, computed pixel by pixel in f64, up to the last unit where f32 cuts."""
    frame = np.random.default_rng(0).random((34, 18, 3)).astype(np.float32)
    r, g, b = frame.astype(np.float64).transpose(2, 0, 1)
    y = (0.2126 * r + 0.7152 * g + 0.0722 * b) * 219 + 16
    u = (-0.1146 * r - 0.3854 * g + 0.5 * b) * 224 + 128
    v = (0.5 * r - 0.4542 * g - 0.0458 * b) * 224 + 128
    halves = [plane.reshape(17, 2, 9, 2).mean((1, 3)).reshape(-1) for plane in (u, v)]
    expected = np.concatenate([y.reshape(-1), *halves]).astype(np.uint8).reshape(51, 18)
    difference = i420(frame).astype(int) - expected
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.001


@pytest.mark.parametrize(
    ("colour", "planes"),
    [((0, 0, 0), (16, 128, 128)), ((1, 1, 1), (235, 128, 128)), ((1, 0, 0), (62, 102, 240))],
)
def test_i420_of_plain_colours(colour: tuple[int, ...], planes: tuple[int, ...]) -> None:
    """Black, white and red have their textbook values in limited range, within the cut."""
    picture = i420(np.full((4, 4, 3), colour, np.float32))
    found = picture[0, 0], picture[4, 0], picture[5, 0]
    assert max(abs(int(a) - b) for a, b in zip(found, planes, strict=True)) <= 1


def test_values_outside_are_clipped() -> None:
    """Frames and sound outside their range don't wrap around."""
    assert set(i420(np.full((2, 2, 3), 9, np.float32))[:2].reshape(-1).tolist()) == {255}
    assert rgb24(np.array([[-1, 2, 0.999]], np.float32)).tolist() == [[0, 255, 254]]
    assert pcm16(np.array([[2.0, -2.0], [0.5, -0.5]], np.float32)).tolist() == [
        [32767, -32767],
        [16383, -16383],
    ]
