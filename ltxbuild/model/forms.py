"""Ways of computing the same numbers, of which a plan chooses one. No jax: plans import this too."""

from __future__ import annotations

from typing import Literal

Layers = Literal["scan", "bits", "unroll"]
"""See `layers.run_layers`: a loop over stacked weights, the same with bf16 as bits (see `loops`), or written
out, one input per layer and weight."""
Attention = Literal["plain", "blocked", "pallas", "cudnn"]
"""See `layers.attention`; `pallas` is the TPU kernel."""
Convolution = Literal["taps", "direct", "products", "winograd", "loop"]
"""See `conv.convolve3d`; `loop` is for one dimension, see `conv1d.convolve1d`."""
BLOCK_QUERIES = 128
"""Queries per block of the blocked attention: bounds the score matrix to `[B, H, 128, S]`."""
ALIASED_ROW = 2048
"""Numbers of bf16 in 4096 bytes: rows at multiples of that start in the same set of a CPU's first cache."""
BAND_BYTES = 24 << 20
"""Most bytes of a band's product in a convolution, unless that leaves few rows."""
