"""Where the video decoder's training starts: weights that draw the coarse picture that a code stands for.

Random weights need thousands of steps to find out where in a picture a code belongs. But codes are linear
in the coarse picture, and so is, up to its last activation, a decoder whose residual branches are silent. Its
first layers are written down here so that they carry the 8 x 8 squares to their places; training makes shapes
of them, with all other channels.

    code --conv_in--> code --up.1--> 2 x 2 squares --up.3--> 1 square --up.5--> (c, -c) and a constant

A colour goes through the last activation as a pair, for `silu(c) - silu(-c) = c`, and the constant keeps the
norm before it from changing much.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from tools.train_demo.weights import Params

Array = NDArray[np.float32]
CONSTANT = 3.0
"""Beside colours in [-1, 1]."""
COLOURS, SQUARES = 3, 4
"""Squares along each side of a cell."""
UP = ("1", "3", "5")
"""The stages of the decoder that spread channels over a block of frames, rows and columns."""


def draw_mosaic(decoder: Params, mean: Array, components: Array) -> None:
    """Write the weights of the path into a decoder's parameters.

    Args:
        decoder: Parameters, changed in place: kernels `[kt, kh, kw, in, (out)]`.
        mean: Coarse pixels of code zero, `[96]`, in [0, 1].
        components: Coarse pixels by code, `[C, 96]`.
    """
    codes = len(components)
    _clear(decoder["conv_in"], codes)
    _centre(decoder["conv_in"])[:, :codes] = np.eye(codes)
    first, second, third = (decoder["up"][index]["conv"] for index in UP)
    _clear(first, 4 * COLOURS)
    _clear(second, COLOURS)
    _clear(third, 2 * COLOURS + 1)
    scaled = (2 * components).reshape(codes, 2, SQUARES, SQUARES, COLOURS)
    offset = (2 * mean - 1).reshape(2, SQUARES, SQUARES, COLOURS)
    for block, (half, row, column) in enumerate(itertools.product(range(2), repeat=3)):
        part = (half, slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2))
        _centre(first)[:codes, block, : 4 * COLOURS] = scaled[(slice(None), *part)].reshape(codes, -1)
        first["bias"][block, : 4 * COLOURS] = offset[part].reshape(-1)
        square = COLOURS * (2 * row + column)
        _centre(second)[square : square + COLOURS, block, :COLOURS] = np.eye(COLOURS)
        signs = np.kron(np.eye(COLOURS), [1, -1])
        _centre(third)[:COLOURS, block, : 2 * COLOURS] = signs
        third["bias"][block, 2 * COLOURS] = CONSTANT
    _read_out(decoder["conv_out"], third["weight"].shape[-1])


def _read_out(conv: Params, channels: int) -> None:
    """Every pixel of a patch gets the colour of its channel pair, at the size it had before the norm."""
    size = np.sqrt((CONSTANT**2 + 2 * COLOURS * 0.5) / channels)
    conv["weight"][..., : 2 * COLOURS + 1, :, :, :] = 0
    for colour in range(COLOURS):
        _centre(conv)[2 * colour, ..., colour] = size
        _centre(conv)[2 * colour + 1, ..., colour] = -size


def _clear(conv: Params, outputs: int) -> None:
    """Nothing goes into the channels that the path uses."""
    conv["weight"][..., :outputs] = 0
    conv["bias"][..., :outputs] = 0


def _centre(conv: Params) -> Array:
    """The middle tap of a kernel, `[in, ...]`, writable."""
    middle: Array = conv["weight"][1, 1, 1]
    return middle
