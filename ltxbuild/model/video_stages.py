"""Stages of the video VAE's encoder and decoder, as they follow from its configuration.

No jax: plans estimate with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ltxbuild.model.config import VaeBlock, VideoVaeConfig

Stride = tuple[int, int, int]
"""Frames, rows and columns that one step of a sampler joins or splits."""

SPLITTING: Mapping[str, Stride] = MappingProxyType(
    {"compress_time": (2, 1, 1), "compress_space": (1, 2, 2), "compress_all": (2, 2, 2)}
)
"""Samplers of the decoder."""
JOINING: Mapping[str, Stride] = MappingProxyType({f"{kind}_res": way for kind, way in SPLITTING.items()})
"""Samplers of the encoder."""
WIDEST = 8
"""Channels after the first convolution in units of `decoder_base_channels`: fixed in the official decoder."""


class Stage(NamedTuple):
    """One entry of `encoder_blocks` or `decoder_blocks`, placed in the network.

    Attributes:
        name: Path in the parameter tree.
        key: Checkpoint key without the names inside the stage.
        stride: Of a sampler; None for residual layers.
        layers: Number of residual layers.
        inputs: Channels in.
        outputs: Channels out.
    """

    name: str
    key: str
    stride: Stride | None
    layers: int
    inputs: int
    outputs: int


def decoder_stages(config: VideoVaeConfig) -> list[Stage]:
    """The decoder's, in the order in which they run: the config lists them from the picture to the latent.

    Raises:
        ValueError: `decoder_blocks` has a kind that is not supported, or a multiplier that does not divide.
    """
    width = config.decoder_base_channels * WIDEST
    return _placed("decoder", "up", reversed(config.decoder_blocks), width, SPLITTING, _narrowed)


def encoder_stages(config: VideoVaeConfig) -> list[Stage]:
    """The encoder's.

    Its first width is `latent_channels`, as in the official encoder; `encoder_base_channels` is not read.

    Raises:
        ValueError: `encoder_blocks` has a kind that is not supported, or widths that do not divide.
    """
    return _placed("encoder", "down", config.encoder_blocks, config.latent_channels, JOINING, _widened)


def _placed(
    side: str,
    way: str,
    blocks: Iterable[VaeBlock],
    width: int,
    samplers: Mapping[str, Stride],
    resampled: Callable[[VaeBlock, Stride, int], int],
) -> list[Stage]:
    stages = []
    for index, block in enumerate(blocks):
        if block.kind != "res_x" and block.kind not in samplers:
            known = ", ".join(("res_x", *samplers))
            raise ValueError(f"{side}_blocks: {block.kind} is not supported (supported: {known})")
        stride = samplers.get(block.kind)
        outputs = width if stride is None else resampled(block, stride, width)
        key = f"vae.{side}.{way}_blocks.{index}"
        stages.append(Stage(f"{way}.{index}", key, stride, block.num_layers, width, outputs))
        width = outputs
    return stages


def _narrowed(block: VaeBlock, _: Stride, width: int) -> int:
    if width % block.multiplier:
        raise ValueError(f"decoder_blocks: {block.kind} divides {width} channels by {block.multiplier}")
    return width // block.multiplier


def _widened(block: VaeBlock, stride: Stride, width: int) -> int:
    outputs, cells = width * block.multiplier, math.prod(stride)
    if outputs % cells or width * cells % outputs:
        raise ValueError(f"encoder_blocks: {block.kind} cannot go from {width} to {outputs} channels")
    return outputs
