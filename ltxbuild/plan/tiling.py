"""How a latent is cut into overlapping tiles for decoding, and where each tile's frames go.

The tiles fade into each other: over an overlap one tile's weight falls while the next one's rises, and the
weights sum to one everywhere. In space the ramps are the inner points of `linspace(0, 1, r + 2)`. In time
a tile starts one latent cell early, because the first cell that a decoder sees stands for one frame instead
of eight; there the rising ramp is `linspace(0, 1, r + 1)[:-1]`, so the early frame itself counts nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from ltx_run.plan import Tile

TIME_SCALE = 8
"""Frames per latent cell, the first cell excepted."""
SPACE_SCALE = 32
"""Pixels per latent cell."""

TILE_FRAMES = 80
OVERLAP_FRAMES = 24
TILE_PIXELS = 768
"""Length of a tile along the longer side of the picture; the other side is in proportion."""
OVERLAP_PIXELS = 64


class _Span(NamedTuple):
    """A tile along one axis: latent cells, output units, and the lengths of its ramps in output units."""

    start: int
    stop: int
    out_start: int
    out_stop: int
    ramps: tuple[int, int]


def tiles(frames: int, height: int, width: int, program: str = "video_decoder") -> tuple[Tile, ...]:
    """Cut a latent into tiles, in time-major order, so that frames are finished from first to last.

    Args:
        frames: Latent cells in time.
        height: Latent rows.
        width: Latent columns.
        program: Name before the size, as in `video_decoder.10x16x24`.

    Raises:
        ValueError: A size is not positive.

    Example:
        >>> [(tile.start, tile.stop) for tile in tiles(16, 16, 24)]
        [((0, 0, 0), (10, 16, 24)), ((6, 0, 0), (16, 16, 24))]
    """
    if min(frames, height, width) < 1:
        raise ValueError(f"a latent of {frames} x {height} x {width} cells cannot be tiled")
    longer = max(height, width)
    axes = (_time_spans(frames), _space_spans(height, longer), _space_spans(width, longer))
    return tuple(_tile(program, spans) for spans in itertools.product(*axes))


def tile_shapes(tiles: Iterable[Tile]) -> dict[str, tuple[int, int, int]]:
    """Latent size `(time, height, width)` that each program decodes, in order of first use."""
    shapes = {}
    for tile in tiles:
        time, height, width = (stop - start for start, stop in zip(tile.start, tile.stop, strict=True))
        shapes[tile.program] = (time, height, width)
    return shapes


def _tile(program: str, spans: tuple[_Span, ...]) -> Tile:
    time, height, width = spans
    size = "x".join(str(span.stop - span.start) for span in spans)
    return Tile(
        program=f"{program}.{size}",
        start=(time.start, height.start, width.start),
        stop=(time.stop, height.stop, width.stop),
        out_start=(time.out_start, height.out_start, width.out_start),
        out_stop=(time.out_stop, height.out_stop, width.out_stop),
        ramps=(time.ramps, height.ramps, width.ramps),
    )


def _cuts(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Start and stop of intervals of `size` that overlap by `overlap`; the last one may be shorter."""
    if length <= size:
        return [(0, length)]
    count = -(-(length - overlap) // (size - overlap))
    starts = [index * (size - overlap) for index in range(count)]
    return [(start, min(start + size, length)) for start in starts]


def _space_spans(length: int, longer: int) -> list[_Span]:
    overlap = OVERLAP_PIXELS // SPACE_SCALE
    # Both ramps of a tile must fit beside each other, or the weights would not sum to one.
    size = max(2 * overlap, round(TILE_PIXELS // SPACE_SCALE * length / longer))
    spans = []
    for start, stop in _cuts(length, size, overlap):
        ramps = (OVERLAP_PIXELS if start > 0 else 0, OVERLAP_PIXELS if stop < length else 0)
        spans.append(_Span(start, stop, start * SPACE_SCALE, stop * SPACE_SCALE, ramps))
    return spans


def _time_spans(length: int) -> list[_Span]:
    spans = []
    for start, stop in _cuts(length, TILE_FRAMES // TIME_SCALE, OVERLAP_FRAMES // TIME_SCALE):
        early = max(0, start - 1)
        ramps = (1 + OVERLAP_FRAMES if start > 0 else 0, OVERLAP_FRAMES if stop < length else 0)
        spans.append(_Span(early, stop, early * TIME_SCALE, 1 + (stop - 1) * TIME_SCALE, ramps))
    return spans
