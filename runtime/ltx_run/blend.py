"""Blending decoded tiles into finished frames, in the memory of one temporal tile.

A tile's weight is one, except on its ramps. Spatial ramps are the inner points of `linspace(0, 1, r + 2)`. In
time the rising ramp is `linspace(0, 1, r + 1)[:-1]` (a tile's first frame, decoded from a cell of another
kind, counts nothing) and the falling one the inner points of `linspace(1, 0, r + 2)`. Weights of overlapping
tiles sum to one, so sums are frames: nothing is divided. Sums are clamped, not the tiles: where one tile
overshoots and its neighbour doesn't, what is in between shall be blended as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltx_run.plan import Tile

Frames = NDArray[np.float32]


def in_time(length: int, rise: int, fall: int) -> NDArray[np.float32]:
    """Weight of each frame of a tile."""
    weights = np.ones(length, np.float32)
    weights[:rise] = np.linspace(0, 1, rise + 1)[:-1]
    weights[length - fall :] *= _falling(fall)
    return weights


def _rising(length: int) -> NDArray[np.float32]:
    return np.linspace(0, 1, length + 2)[1:-1].astype(np.float32)


def _falling(length: int) -> NDArray[np.float32]:
    return np.linspace(1, 0, length + 2)[1:-1].astype(np.float32)


def in_space(frame: NDArray[np.float32], ramps: Sequence[tuple[int, int]]) -> None:
    """Weigh a frame `[H, W, 3]` of a tile in place; what is on no ramp isn't touched."""
    for axis, (rise, fall) in enumerate(ramps):
        along = np.moveaxis(frame, axis, -1)
        if rise:
            along[..., :rise] *= _rising(rise)
        if fall:
            along[..., along.shape[-1] - fall :] *= _falling(fall)


def blend(
    tiles: Sequence[Tile], height: int, width: int, decoded: Iterator[NDArray[Any]]
) -> Iterator[Frames]:
    """Finished frames in [0, 1], in order, as chunks f32 `[*, H, W, 3]` valid until the next is asked for.

    Args:
        tiles: In the order of time.
        height: Of the video.
        width: Of the video.
        decoded: Values of each tile `[f, h, w, 3]`, black 0 and white 1, asked for one by one; they are not
            changed.
    """
    groups = _temporal_groups(tiles)
    longest = max(group[0].out_stop[0] - group[0].out_start[0] for group in groups)
    buffer = np.zeros((longest, height, width, 3), np.float32)
    for index, group in enumerate(groups):
        start, stop = group[0].out_start[0], group[0].out_stop[0]
        for tile in group:
            _add(buffer[: stop - start], tile, next(decoded))
        if index + 1 == len(groups):
            yield _clamped(buffer[: stop - start])
            return
        following = groups[index + 1][0].out_start[0]
        yield _clamped(buffer[: following - start])
        _shift(buffer, following - start, stop - following)


def _clamped(finished: Frames) -> Frames:
    """Frames with their values cut to [0, 1], in place."""
    return np.clip(finished, 0, 1, out=finished)


def _shift(buffer: Frames, finished: int, unfinished: int) -> None:
    """Move unfinished frames to the front and clear the others."""
    buffer[:unfinished] = buffer[finished : finished + unfinished]
    buffer[unfinished:] = 0


def _add(frames: Frames, tile: Tile, decoded: NDArray[Any]) -> None:
    """Add a tile frame by frame: a whole one in f32 would take as much memory as the buffer."""
    (top, left), (bottom, right) = tile.out_start[1:], tile.out_stop[1:]
    weights = in_time(len(decoded), *tile.ramps[0])
    for frame, values, weight in zip(frames, decoded, weights, strict=True):
        weighted = values.astype(np.float32)
        if weight != 1:
            weighted *= weight
        in_space(weighted, tile.ramps[1:])
        frame[top:bottom, left:right] += weighted


def _temporal_groups(tiles: Sequence[Tile]) -> list[list[Tile]]:
    """Tiles grouped by their frames, in order."""
    groups: dict[tuple[int, int], list[Tile]] = {}
    for tile in tiles:
        groups.setdefault((tile.out_start[0], tile.out_stop[0]), []).append(tile)
    return list(groups.values())
