"""Noise schedules: sigma per step, falling to zero.

Plans are made from them: jax is not imported here, and numpy only where a schedule is computed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DISTILLED_STAGE_1 = (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0)
DISTILLED_STAGE_2 = (0.909375, 0.725, 0.421875, 0.0)

BASE_TOKENS, BASE_SHIFT = 1024, 0.95
MAX_TOKENS, MAX_SHIFT = 4096, 2.05
TERMINAL = 0.1
"""The last sigma before zero."""


def shifted(steps: int, tokens: int = MAX_TOKENS) -> tuple[float, ...]:
    """Schedule of the undistilled model: even steps, shifted towards noise, stretched to end at `TERMINAL`.

    Computed in f32, operation by operation, so that the values are those the model's authors sample with;
    the first is not exactly 1.

    Args:
        steps: Denoising steps.
        tokens: Video tokens the shift is chosen for. The one- and two-stage pipelines keep the default
            whatever the size of the video.

    Returns:
        `steps + 1` sigmas.

    Raises:
        ValueError: `steps` is less than 2: the stretch needs one sigma below the first.
    """
    import numpy as np

    if steps < 2:
        raise ValueError(f"a shifted schedule needs at least 2 steps, got {steps}")
    slope = (MAX_SHIFT - BASE_SHIFT) / (MAX_TOKENS - BASE_TOKENS)
    growth = np.float32(math.exp(tokens * slope + (BASE_SHIFT - slope * BASE_TOKENS)))
    one = np.float32(1)
    even = _evenly_spaced(steps)[:-1]
    # A reciprocal and a product, not a quotient: that is how the authors' scheduler rounds.
    complement = one - one / (growth + (one / even - one)) * growth
    stretched = one - complement / (complement[-1] / np.float32(1 - TERMINAL))
    return (*(float(sigma) for sigma in stretched), 0.0)


def _evenly_spaced(steps: int) -> NDArray[np.float32]:
    """From 1 to 0 in f32, the upper half counted from 1 and the lower half from 0.

    The step is rounded to f32; product and sum are rounded together, as a fused multiply-add does.
    """
    import numpy as np

    step = float(np.float32(1) / np.float32(steps))
    index = np.arange(steps + 1)
    spaced = np.where(index < (steps + 1) // 2, 1 - step * index, step * (steps - index))
    return spaced.astype(np.float32)
