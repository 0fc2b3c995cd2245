"""What LoRAs add to a weight: `W + sum(strength * B @ A)`, with the official rounding.

In bfloat16 the official code rounds `strength * B`, each product, their sum and the merged weight, each to
the dtype at hand; products accumulate in f32. In float32 nothing is rounded to anything narrower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes  # noqa: F401  makes numpy know bfloat16
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Float32 = NDArray[np.float32]

BLOCK = 1 << 22
"""Elements of a weight that are merged at a time: bounds the f32 intermediates to 16 MB each."""


@dataclass(frozen=True, slots=True)
class Delta:
    """One LoRA's part of one weight, in f32 for the matrix product.

    Attributes:
        up: `strength * B`, `[out, r]`.
        down: `A`, `[r, in]`.
        dtypes: What the product is rounded to, in order.
    """

    up: Float32
    down: Float32
    dtypes: tuple[str, ...]

    def rows(self, rows: slice) -> Float32:
        """Rows of the product, `[rows, in]`."""
        return rounded(self.up[rows] @ self.down, self.dtypes)


def delta(down: Array, up: Array, strength: float, precision: str) -> Delta:
    """A LoRA's part of a weight from its two factors.

    Args:
        down: `A`, `[r, in]`.
        up: `B`, `[out, r]`, of the same dtype.
        strength: Factor of the product.
        precision: `bfloat16` or `float32`.
    """
    own = up.dtype.name
    dtypes = () if precision == "float32" else tuple(dict.fromkeys((own, precision)))
    scaled = up.astype(np.float32) * np.float32(strength)
    return Delta(rounded(scaled, dtypes[:1]), down.astype(np.float32), dtypes)


def rounded(values: Float32, dtypes: Sequence[str]) -> Float32:
    """The values after being stored in one dtype after the other."""
    for dtype in dtypes:
        if dtype != "float32":
            values = values.astype(dtype).astype(np.float32)
    return values


def merged(weight: Array, deltas: Sequence[Delta], precision: str) -> Array:
    """A weight `[out, in]` with all deltas added, in `precision`."""
    result = weight.astype(precision)
    height = max(1, BLOCK // weight.shape[1])
    for start in range(0, len(result), height):
        rows = slice(start, start + height)
        total = deltas[0].rows(rows)
        for further in deltas[1:]:
            total += further.rows(rows)
        if len(deltas) > 1:
            total = rounded(total, (precision,))
        total += result[rows].astype(np.float32)
        result[rows] = total
    return result
