"""Decoding a latent in tiles: several in one call, where a program takes several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltx_run.plan import DecodeTiles, Tile

Array = NDArray[Any]
Decode = Callable[[Sequence[Tile], Array], Array]


def decoded(step: DecodeTiles, latent: Array, decode: Decode) -> Iterator[Array]:
    """Frames `[f, h, w, 3]` of each tile in order; a call is made when its first tile is asked for.

    Args:
        step: The tiles, and how many go into a call.
        latent: `[1, C, F, h, w]`.
        decode: Decodes tiles of one size, given them and their cells `[together, C, t, h, w]`. Where there
            are fewer tiles than that, the last one's cells are there several times.
    """
    for tiles in _calls(step):
        cells = [_cut(latent, tile) for tile in tiles]
        cells += cells[-1:] * (step.together - len(tiles))
        yield from decode(tiles, np.concatenate(cells))[: len(tiles)]


def _calls(step: DecodeTiles) -> Iterator[Sequence[Tile]]:
    for _, alike in groupby(step.tiles, lambda tile: tile.program):
        while tiles := tuple(islice(alike, step.together)):
            yield tiles


def _cut(latent: Array, tile: Tile) -> Array:
    cells = (slice(start, stop) for start, stop in zip(tile.start, tile.stop, strict=True))
    return latent[:, :, *cells]
