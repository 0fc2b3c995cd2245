"""Tiles of a latent, several in a call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ltx_run.plan import DecodeTiles, Tile
from ltx_run.tiled import decoded
from ltxbuild.plan.tiling import tiles

LATENT = np.arange(2 * 16 * 32 * 48, dtype=np.float32).reshape(1, 2, 16, 32, 48)


def step(together: int) -> DecodeTiles:
    """The official cut of a full-size video: 18 tiles of four sizes."""
    return DecodeTiles(
        inputs=("latent",),
        outputs=("frames",),
        frames=121,
        height=1024,
        width=1536,
        tiles=tiles(16, 32, 48),
        together=together,
    )


@pytest.mark.parametrize("together", [1, 2, 8])
def test_each_tile_comes_once_in_order(together: int) -> None:
    """Whatever goes into a call: what fills it up doesn't come out."""
    calls = []

    def decode(some: Sequence[Tile], cells: np.ndarray) -> np.ndarray:
        assert len(cells) == together
        assert len({tile.program for tile in some}) == 1
        assert all(np.array_equal(cells[-1], extra) for extra in cells[len(some) :])
        calls.append(len(some))
        return cells

    found = list(decoded(step(together), LATENT, decode))
    for cells, tile in zip(found, step(1).tiles, strict=True):
        (t0, y0, x0), (t1, y1, x1) = tile.start, tile.stop
        assert np.array_equal(cells, LATENT[0, :, t0:t1, y0:y1, x0:x1])
    assert sum(calls) == 18
    assert len(calls) == (18 if together == 1 else 12)


def test_a_call_is_made_when_its_first_tile_is_wanted() -> None:
    """So that frames are written while later ones are not yet decoded."""
    calls = []
    stream = decoded(step(1), LATENT, lambda some, cells: calls.append(some) or cells)
    assert not calls
    next(stream)
    assert len(calls) == 1
