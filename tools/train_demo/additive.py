"""Where the vocoder's training starts: weights that play the notes of the world.

As long as its residual branches are silent, a generator is linear up to its last activation. A regression on
the training data tells from seven mel frames how loud each note is: that is the first convolution. The first
upsampling turns it into five parts of a frame's waveform, 32 samples beside each other in as many channels;
the others lay them out in time. A pair `(x, -x)` takes the sine of the last activation out of the way.
Training does what is not linear.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.train_demo.weights import Params
from tools.train_demo.world import HOP, SAMPLE_RATE, TUNES

Floats = NDArray[Any]
NOTES = tuple(sorted({note for tune in TUNES.values() for note in tune}))
RIDGE = 1e-2


def fit_loudness(mel: Floats, loudness: Floats, taps: int) -> tuple[Floats, Floats]:
    """Ridge regression from `taps` frames around each to the loudness of the notes.

    Args:
        mel: `[N, T, 64]`.
        loudness: `[N, T, notes]`.
        taps: An odd number.

    Returns:
        Weight `[taps, 64, notes]` and bias `[notes]`.
    """
    reach = taps // 2
    padded = np.pad(mel, ((0, 0), (reach, reach), (0, 0)))
    shifted = np.stack([padded[:, tap : tap + mel.shape[1]] for tap in range(taps)], axis=2)
    rows = np.concatenate(
        [shifted.reshape(-1, taps * mel.shape[2]), np.ones((loudness[..., 0].size, 1))], axis=1
    )
    gram = rows.T @ rows / len(rows) + RIDGE * np.eye(rows.shape[1])
    solved = np.linalg.solve(gram, rows.T @ loudness.reshape(len(rows), -1) / len(rows))
    return solved[:-1].reshape(taps, mel.shape[2], -1), solved[-1]


def draw_notes(generator: Params, weight: Floats, bias: Floats, rates: tuple[int, ...]) -> None:
    """Write the path into a generator's parameters, in place.

    Args:
        generator: Kernels `[k, in, out]`, of transposed convolutions `[in, k, out]`.
        weight: See `fit_loudness`.
        bias: See `fit_loudness`.
        rates: Upsampling of each stage.
    """
    notes = len(NOTES)
    pre = generator["conv_pre"]
    pre["weight"][:, :, :notes] = np.concatenate([weight, weight], axis=1) / 2
    pre["bias"][:notes] = bias
    time, width = np.arange(HOP) / SAMPLE_RATE, HOP
    waves = np.sin(2 * np.pi * np.outer(NOTES, time))
    for stage, rate in enumerate(rates):
        up = generator["stages"][str(stage)]["up"]
        parts, width = width, width // rate
        outputs = width if width > 1 else 2
        up["weight"][:, :, :outputs] = 0
        first = (up["weight"].shape[1] - rate) // 2
        for part in range(rate):
            samples = slice(part * width, (part + 1) * width)
            piece = waves[:, samples] if stage == 0 else np.eye(parts)[:, samples]
            up["weight"][: len(piece), first + part, :outputs] = piece if width > 1 else [[1, -1]] * piece
    post = generator["conv_post"]["weight"]
    post[:, :2] = 0
    post[post.shape[0] // 2, :2] = [[0.5], [-0.5]]
