"""Noise from a seed: the same numbers on every platform, device count and version.

Draw `d` of seed `s` is made of the words of Philox4x64-10 with key `(s, d)` and counters 1, 2, … (that is
`numpy.random.Philox`, whose raw words numpy promises not to change). Two words `a`, `b` make two values by
the method of Box and Muller in f64:

    u = (floor(a / 2^11) + 1) / 2^53,  v = floor(b / 2^11) / 2^53
    r = sqrt(-2 ln u),  values r cos(2 pi v), r sin(2 pi v)

They fill the tensor in row-major order and are rounded to f32, then to the tensor's dtype. Platforms'
logarithms and cosines differ in the last bit of an f64 at most, which the rounding hides but for one value
in hundreds of millions.

Example:
    >>> normal(seed=10, draw=0, shape=(3,), dtype="float32")
    array([0.09887393, 0.66478276, 1.3407527 ], dtype=float32)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltx_run.distribution import DTYPES

SEED_BITS = 64


def normal(*, seed: int, draw: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Standard normal values.

    Args:
        seed: 0 to 2^64 - 1.
        draw: Number of the independent stream, 0 to 2^64 - 1.
        shape: Of the result.
        dtype: Of the result.
    """
    count = math.prod(shape)
    pairs = -(-count // 2)
    words = np.random.Philox(key=np.array([seed, draw], np.uint64)).random_raw(2 * pairs).reshape(pairs, 2)
    mantissas = (words >> np.uint64(11)).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log((mantissas[:, 0] + 1.0) * 2.0**-53))
    angle = mantissas[:, 1] * (2.0 * math.pi * 2.0**-53)
    values = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:count]
    return values.astype(np.float32).astype(DTYPES[dtype], copy=False).reshape(shape)
