"""The loss curves of a training as a picture: `python -m tools.train_demo.curves STATE > curves.svg`.

One box per run, its steps from left to right, its loss on a logarithmic scale from top to bottom.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

WIDTH, HEIGHT, GAP, COLUMNS = 220, 90, 34, 4


def picture(state: Path) -> str:
    """An SVG image of every `NAME.jsonl` in a directory.

    Args:
        state: Where `loop.train` wrote them.

    Raises:
        ValueError: There are none.
    """
    files = sorted(state.glob("*.jsonl"))
    if not files:
        raise ValueError(f"{state}: no loss curves (*.jsonl) here")
    boxes = [_box(index, file) for index, file in enumerate(files)]
    width = GAP // 2 + COLUMNS * (WIDTH + GAP // 2)
    height = -(-len(files) // COLUMNS) * (HEIGHT + GAP) + GAP // 2
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    return "\n".join(
        [f'{head} font-size="11">', '<rect width="100%" height="100%" fill="white"/>', *boxes, "</svg>\n"]
    )


def _box(index: int, file: Path) -> str:
    """One run: its frame, its name with the last step, its first and its last loss, and the curve."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    steps, losses = (np.asarray([row[key] for row in rows], np.float64) for key in ("step", "loss"))
    heights = np.log(losses)
    span = max(heights.max() - heights.min(), 1e-9)
    places = zip(WIDTH * steps / steps[-1], HEIGHT * (heights.max() - heights) / span, strict=True)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    left = GAP // 2 + index % COLUMNS * (WIDTH + GAP // 2)
    top = GAP // 2 + index // COLUMNS * (HEIGHT + GAP) + 8
    label = f"{file.stem}: {int(steps[-1])} steps, {losses[0]:.2g} to {losses[-1]:.2g}"
    return (
        f'<g transform="translate({left},{top})"><text y="-4">{label}</text>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#ccc"/>'
        f'<polyline fill="none" stroke="#26c" points="{points}"/></g>'
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(picture(Path(sys.argv[1])), end="")
