"""Tiled decode: blending against a reference that weighs whole masks."""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Sequence
from itertools import repeat

import ml_dtypes
import numpy as np
import pytest

from ltx_run.blend import blend
from ltx_run.plan import Tile
from ltxbuild.plan.tiling import tiles as official_tiles

Spans = Sequence[tuple[int, int, tuple[int, int]]]


def grid(times: Spans, rows: Spans, columns: Spans) -> tuple[Tile, ...]:
    """Tiles over output spans; latent cells don't matter here."""
    return tuple(
        Tile(
            program="decoder",
            start=(0, 0, 0),
            stop=(1, 1, 1),
            out_start=(t[0], y[0], x[0]),
            out_stop=(t[1], y[1], x[1]),
            ramps=(t[2], y[2], x[2]),
        )
        for t in times
        for y in rows
        for x in columns
    )


def mask(length: int, ramps: tuple[int, int], *, time: bool) -> np.ndarray:
    """Weights along one axis, written out."""
    weights = np.ones(length)
    rise, fall = ramps
    for i in range(rise):
        weights[i] *= i / rise if time else (i + 1) / (rise + 1)
    for i in range(fall):
        weights[length - fall + i] *= 1 - (i + 1) / (fall + 1)
    return weights


def naive(tiles: Sequence[Tile], shape: tuple[int, int, int], values: dict[int, np.ndarray]) -> np.ndarray:
    """Sum of whole weighted tiles in f64."""
    video = np.zeros((*shape, 3))
    for index, tile in enumerate(tiles):
        sizes = [stop - start for start, stop in zip(tile.out_start, tile.out_stop, strict=True)]
        t, y, x = (mask(size, tile.ramps[axis], time=axis == 0) for axis, size in enumerate(sizes))
        weights = t[:, None, None, None] * y[None, :, None, None] * x[None, None, :, None]
        where = tuple(slice(a, b) for a, b in zip(tile.out_start, tile.out_stop, strict=True))
        video[where] += weights * values[index].astype(np.float64)
    return video


SMALL = grid(
    [(0, 9, (0, 4)), (4, 17, (5, 3)), (13, 20, (4, 0))],
    [(0, 6, (0, 2)), (4, 10, (2, 0))],
    [(0, 8, (0, 3)), (5, 12, (3, 3)), (9, 16, (3, 0))],
)
SHAPE = (20, 10, 16)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_against_whole_masks(dtype: type) -> None:
    """Three by two by three overlapping tiles of noise give what whole masks give, in order."""
    random = np.random.default_rng(0)
    values = {}
    for index, tile in enumerate(SMALL):
        size = [stop - start for start, stop in zip(tile.out_start, tile.out_stop, strict=True)]
        values[index] = random.random((*size, 3)).astype(dtype)
    untouched = {index: value.copy() for index, value in values.items()}
    pending = iter(values.values())
    chunks = [chunk.copy() for chunk in blend(SMALL, *SHAPE[1:], pending)]
    assert [len(chunk) for chunk in chunks] == [4, 9, 7]
    assert np.abs(np.concatenate(chunks) - naive(SMALL, SHAPE, values)).max() <= 1e-6
    assert all(np.array_equal(values[i], untouched[i]) for i in values)


def test_weights_of_the_official_tiling_sum_to_one() -> None:
    """White tiles, cut as the builder cuts 16x32x48 latents (scaled down in space), give a white video."""
    tiles = official_tiles(16, 32, 48)

    def shrunk(tile: Tile) -> Tile:
        return Tile(
            program="d",
            start=tile.start,
            stop=tile.stop,
            out_start=(tile.out_start[0], tile.out_start[1] // 8, tile.out_start[2] // 8),
            out_stop=(tile.out_stop[0], tile.out_stop[1] // 8, tile.out_stop[2] // 8),
            ramps=(tile.ramps[0], *((a // 8, b // 8) for a, b in tile.ramps[1:])),
        )

    small = [shrunk(tile) for tile in tiles]

    def white(tile: Tile) -> np.ndarray:
        return np.ones([*(b - a for a, b in zip(tile.out_start, tile.out_stop, strict=True)), 3], np.float32)

    chunks = [chunk.copy() for chunk in blend(small, 128, 192, map(white, small))]
    video = np.concatenate(chunks)
    assert video.shape == (121, 128, 192, 3)
    assert np.abs(video - 1).max() <= 1e-6


def test_single_tile_passes_through() -> None:
    """Without ramps the frames are the decoded values, bit for bit."""
    values = np.random.default_rng(1).random((3, 4, 6, 3)).astype(np.float32)
    (tile,) = grid([(0, 3, (0, 0))], [(0, 4, (0, 0))], [(0, 6, (0, 0))])
    (chunk,) = blend([tile], 4, 6, iter([values]))
    assert np.array_equal(chunk, values)


def test_sums_are_clamped_and_not_tiles() -> None:
    """A tile that overshoots is blended with its neighbour as it is; the result is cut to [0, 1]."""
    tiles = grid([(0, 1, (0, 0))], [(0, 1, (0, 0))], [(0, 3, (0, 1)), (2, 5, (1, 0))])
    values = [np.full((1, 1, 3, 3), 1.5, np.float32), np.full((1, 1, 3, 3), -0.25, np.float32)]
    (chunk,) = blend(tiles, 1, 5, iter(values))
    assert chunk[0, 0, :, 0].tolist() == [1, 1, 0.625, 0, 0]


def test_memory_is_one_temporal_tile() -> None:
    """Chunks are views of one buffer as long as the longest temporal tile; decoded tiles are let go."""
    alive: list[weakref.ref[np.ndarray]] = []

    def decode(tile: Tile) -> np.ndarray:
        assert sum(ref() is not None for ref in alive) <= 1
        size = [stop - start for start, stop in zip(tile.out_start, tile.out_stop, strict=True)]
        values = np.zeros((*size, 3), np.float32)
        alive.append(weakref.ref(values))
        return values

    bases = {id(chunk.base) for chunk in blend(SMALL, *SHAPE[1:], map(decode, SMALL))}
    (buffer,) = {chunk.base.shape for chunk in blend(SMALL, *SHAPE[1:], map(decode, SMALL))}
    assert len(bases) == 1
    assert buffer == (13, *SHAPE[1:], 3)


def peak_of_blend(groups: int) -> int:
    """Most bytes held while tiles of 16 frames are blended, the decoded tile not counted."""
    times = [(8 * i, 8 * i + 16, (8 if i else 0, 8 if i + 1 < groups else 0)) for i in range(groups)]
    tiles = grid(times, [(0, 32, (0, 0))], [(0, 64, (0, 0))])
    values = np.zeros((16, 32, 64, 3), ml_dtypes.bfloat16)
    tracemalloc.start()
    try:
        for _ in blend(tiles, 32, 64, repeat(values)):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_video() -> None:
    """Twenty temporal tiles take what two take: the buffer, and less than three frames beside it."""
    frame = 32 * 64 * 3 * 4
    assert max(peak_of_blend(2), peak_of_blend(20)) < 19 * frame
