"""How a latent is cut into overlapping tiles for decoding, and where each tile's frames go.

The tiles fade into each other: over an overlap one tile's weight falls while the next one's rises, and the
weights sum to one everywhere. In space the ramps are the inner points of `linspace(0, 1, r + 2)`. In time
a tile starts one latent cell early, because the first cell that a decoder sees stands for one frame instead
of eight; there the rising ramp is `linspace(0, 1, r + 1)[:-1]`, so the early frame itself counts nothing.

There are two ways to cut. The official one has tiles of one size and smaller ones where an axis ends: up to
eight shapes, each of which is a program. The other has tiles of one shape, as few as are at most an eighth
longer than the official ones (in time: not longer), spread evenly. Where a cut runs shows in the numbers, as
far as what a decoder sees of a cell's surroundings does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Literal, NamedTuple

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
Cut = Literal["official", "equal"]


class _Span(NamedTuple):
    """A tile along one axis: latent cells, output units, and the lengths of its ramps in output units."""

    start: int
    stop: int
    out_start: int
    out_stop: int
    ramps: tuple[int, int]


def tiles(
    frames: int, height: int, width: int, cut: Cut = "official", program: str = "video_decoder"
) -> tuple[Tile, ...]:
    """Cut a latent into tiles, in time-major order, so that frames are finished from first to last.

    Args:
        frames: Latent cells in time.
        height: Latent rows.
        width: Latent columns.
        cut: Which way to cut.
        program: Name before the size, as in `video_decoder.10x16x24`.

    Raises:
        ValueError: A size is not positive.

    Example:
        >>> [(tile.start, tile.stop) for tile in tiles(16, 16, 24, "official")]
        [((0, 0, 0), (10, 16, 24)), ((6, 0, 0), (16, 16, 24))]
        >>> len(tiles(16, 32, 48, "official")), len(tile_shapes(tiles(16, 32, 48, "official")))
        (18, 4)
        >>> len(tiles(16, 32, 48, "equal")), len(tile_shapes(tiles(16, 32, 48, "equal")))
        (8, 1)
    """
    if min(frames, height, width) < 1:
        raise ValueError(f"a latent of {frames} x {height} x {width} cells cannot be tiled")
    longer = max(height, width)
    axes = (_time_spans(frames, cut), _space_spans(height, longer, cut), _space_spans(width, longer, cut))
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


def _equal_cuts(length: int, longest: int, overlap: int) -> list[tuple[int, int]]:
    """The fewest intervals of one size, `longest` at most, that overlap by `overlap` or more.

    >>> _equal_cuts(32, 18, 2), _equal_cuts(33, 18, 2)
    ([(0, 17), (15, 32)], [(0, 18), (15, 33)])
    """
    count = 1 if length <= longest else -(-(length - overlap) // (longest - overlap))
    size = -(-(length + overlap * (count - 1)) // count)
    starts = [index * (length - size) // max(1, count - 1) for index in range(count)]
    return [(start, start + size) for start in starts]


def _ramps(cuts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Cells that each interval shares with the one before and with the one after."""
    shared = [before[1] - after[0] for before, after in itertools.pairwise(cuts)]
    return list(zip([0, *shared], [*shared, 0], strict=True))


def _space_spans(length: int, longer: int, cut: Cut) -> list[_Span]:
    overlap = OVERLAP_PIXELS // SPACE_SCALE
    # Both ramps of a tile must fit beside each other, or the weights would not sum to one.
    size = max(2 * overlap, round(TILE_PIXELS // SPACE_SCALE * length / longer))
    if cut == "official":
        cuts = _cuts(length, size, overlap)
    else:
        cuts = _equal_cuts(length, max(3 * overlap, size + size // 8), overlap)
    return [
        _Span(start, stop, start * SPACE_SCALE, stop * SPACE_SCALE, (rise * SPACE_SCALE, fall * SPACE_SCALE))
        for (start, stop), (rise, fall) in zip(cuts, _ramps(cuts), strict=True)
    ]


def _time_spans(length: int, cut: Cut) -> list[_Span]:
    size, overlap = TILE_FRAMES // TIME_SCALE, OVERLAP_FRAMES // TIME_SCALE
    if cut == "official":
        cuts = _cuts(length, size, overlap)
    else:  # an early cell is part of the overlap, so that all tiles have one length
        early = _equal_cuts(length, size + 1, overlap + 1)
        cuts = [(start + (start > 0), stop) for start, stop in early]
    spans = []
    for (start, stop), (rise, fall) in zip(cuts, _ramps(cuts), strict=True):
        first, ramps = max(0, start - 1), (TIME_SCALE * rise + (start > 0), TIME_SCALE * fall)
        spans.append(_Span(first, stop, first * TIME_SCALE, 1 + (stop - 1) * TIME_SCALE, ramps))
    return spans
