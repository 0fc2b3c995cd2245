"""The tiling of the video decoder: worked examples, the official splits, and weights that sum to one."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracles import import_oracles

from ltx_run.plan import Tile
from ltxbuild.plan.tiling import Cut, tile_shapes, tiles

import_oracles()
from ltx_core.model.video_vae import SpatialTilingConfig, TemporalTilingConfig, TilingConfig  # noqa: E402
from ltx_core.model.video_vae.video_vae import VideoDecoder  # noqa: E402
from ltx_core.types import VIDEO_SCALE_FACTORS  # noqa: E402

SIZES = [
    (1, 2, 2),
    (10, 24, 24),
    (11, 16, 25),
    (16, 16, 24),
    (16, 32, 48),
    (31, 48, 27),
    (33, 25, 60),
    (2, 4, 25),
]


def _cuts(plan: tuple[Tile, ...], axis: int) -> list[tuple[int, int]]:
    return sorted({(tile.start[axis], tile.stop[axis]) for tile in plan})


def _mask(length: int, ramps: tuple[int, int], *, time: bool) -> NDArray[np.float64]:
    """Weights of one tile along one axis."""
    rising, falling = ramps
    mask = np.ones(length)
    if rising:
        inner = np.linspace(0, 1, rising + 1)[:-1] if time else np.linspace(0, 1, rising + 2)[1:-1]
        mask[:rising] *= inner
    if falling:
        mask[length - falling :] *= np.linspace(1, 0, falling + 2)[1:-1]
    return mask


def _masks(tile: Tile) -> list[NDArray[np.float64]]:
    return [
        _mask(tile.out_stop[axis] - tile.out_start[axis], tile.ramps[axis], time=axis == 0)
        for axis in range(3)
    ]


def _official(size: tuple[int, int, int]) -> list[Any]:
    config = TilingConfig(SpatialTilingConfig(768, 64), TemporalTilingConfig(80, 24))
    decoder = SimpleNamespace(video_downscale_factors=VIDEO_SCALE_FACTORS)
    return VideoDecoder._prepare_tiles(decoder, torch.empty(1, 1, *size, device="meta"), config)


def test_full_resolution_example() -> None:
    """121 frames of 1024 x 1536 are cut in time, height and width."""
    plan = tiles(16, 32, 48)
    assert _cuts(plan, 0) == [(0, 10), (6, 16)]
    assert _cuts(plan, 1) == [(0, 16), (14, 30), (28, 32)]
    assert _cuts(plan, 2) == [(0, 24), (22, 46), (44, 48)]


def test_half_resolution_example() -> None:
    """121 frames of 512 x 768 are cut in time alone."""
    plan = tiles(16, 16, 24)
    assert [(tile.start, tile.stop) for tile in plan] == [
        ((0, 0, 0), (10, 16, 24)),
        ((6, 0, 0), (16, 16, 24)),
    ]
    assert [(tile.out_start, tile.out_stop) for tile in plan] == [
        ((0, 0, 0), (73, 512, 768)),
        ((48, 0, 0), (121, 512, 768)),
    ]
    assert [tile.ramps for tile in plan] == [((0, 24), (0, 0), (0, 0)), ((25, 0), (0, 0), (0, 0))]


@pytest.mark.parametrize("size", SIZES)
def test_tiles_and_weights_are_the_official_ones(size: tuple[int, int, int]) -> None:
    """Cut, place, order and blending weights of every tile are the official decoder's."""
    plan, official = tiles(*size), _official(size)
    assert len(plan) == len(official)
    for tile, want in zip(plan, official, strict=True):
        assert list(zip(tile.start, tile.stop, strict=True)) == [
            (s.start, s.stop) for s in want.in_coords[2:]
        ]
        assert list(zip(tile.out_start, tile.out_stop, strict=True)) == [
            (s.start, s.stop) for s in want.out_coords[2:]
        ]
        for mask, expected in zip(_masks(tile), want.masks_1d[2:], strict=True):
            np.testing.assert_allclose(mask, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("cut", ["official", "equal"])
@pytest.mark.parametrize("size", [*SIZES, (3, 4, 32), (3, 40, 5), (12, 7, 100), (41, 17, 33)])
def test_weights_sum_to_one(size: tuple[int, int, int], cut: Cut) -> None:
    """Blending is a weighted mean: over every output pixel the tiles' weights sum to one.

    Some sizes are so long that the official code makes tiles of 3 cells, whose ramps overlap; ours are at
    least 4 cells long, so that the sum holds without a division.
    """
    plan = tiles(*size, cut)
    total = [np.zeros(extent) for extent in (1 + 8 * (size[0] - 1), 32 * size[1], 32 * size[2])]
    for axis in range(3):
        for place in {(t.out_start[axis], t.out_stop[axis], t.ramps[axis]) for t in plan}:
            total[axis][place[0] : place[1]] += _mask(place[1] - place[0], place[2], time=axis == 0)
    for weights in total:
        np.testing.assert_allclose(weights, 1, atol=1e-12)


@given(st.integers(1, 90), st.integers(1, 70), st.integers(1, 70))
def test_equal_tiles_have_one_shape_and_cover_everything(frames: int, height: int, width: int) -> None:
    """One program for any size; tiles are as long as the official ones or a little longer."""
    plan = tiles(frames, height, width, "equal")
    ((time, rows, columns),) = tile_shapes(plan).values()
    longer = max(height, width)
    assert time <= 11
    for length, size in ((rows, height), (columns, width)):
        assert length <= max(6, round(24 * size / longer) * 9 / 8)
    for axis, size in enumerate((frames, height, width)):
        cuts = _cuts(plan, axis)
        assert (cuts[0][0], cuts[-1][1]) == (0, size)
        assert all(before[1] - after[0] >= 2 for before, after in itertools.pairwise(cuts))


def test_equal_tiles_at_full_resolution() -> None:
    """121 frames of 1024 x 1536: eight tiles of one shape, where the official cut has 18 of four shapes."""
    plan = tiles(16, 32, 48, "equal")
    assert [_cuts(plan, axis) for axis in range(3)] == [
        [(0, 10), (6, 16)],
        [(0, 17), (15, 32)],
        [(0, 25), (23, 48)],
    ]
    assert plan[-1].ramps == ((25, 0), (64, 0), (64, 0))


def test_blending_restores_what_was_cut() -> None:
    """A video cut into tiles and blended again is the same video."""
    size = (11, 3, 26)
    video = np.random.default_rng(0).random((81, 96, 832))
    out = np.zeros_like(video)
    for tile in tiles(*size):
        place = tuple(slice(a, b) for a, b in zip(tile.out_start, tile.out_stop, strict=True))
        time, height, width = _masks(tile)
        out[place] += video[place] * time[:, None, None] * height[None, :, None] * width[None, None, :]
    np.testing.assert_allclose(out, video, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_frames_finish_in_order(size: tuple[int, int, int]) -> None:
    """Tiles come by time, so a frame is complete when a tile that starts behind it comes."""
    starts = [tile.out_start[0] for tile in tiles(*size)]
    assert starts == sorted(starts)


def test_programs_are_named_by_size() -> None:
    """Tiles of one size share a program, and its name says the size."""
    plan = tiles(16, 32, 48, program="decode")
    shapes = tile_shapes(plan)
    assert {tile.program for tile in plan} == shapes.keys()
    assert shapes == {f"decode.10x{h}x{w}": (10, h, w) for h, w in itertools.product((16, 4), (24, 4))}


@pytest.mark.parametrize("size", [(0, 4, 4), (4, 0, 4), (4, 4, -1)])
def test_empty_latents_are_refused(size: tuple[int, int, int]) -> None:
    """A latent without cells is refused with its size."""
    with pytest.raises(ValueError, match="cannot be tiled"):
        tiles(*size)
