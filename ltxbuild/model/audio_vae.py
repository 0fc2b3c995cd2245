"""What the audio VAE's encoder and decoder share: parameter specs of residual blocks and level widths."""

from __future__ import annotations

from ltxbuild.model.config import AudioVaeConfig
from ltxbuild.model.conv import conv2d
from ltxbuild.model.params import ParamTable, prefixed


def level_widths(config: AudioVaeConfig) -> tuple[int, ...]:
    """Channels of each resolution level, finest first."""
    return tuple(config.ch * factor for factor in config.ch_mult)


def residual_block(key: str, outputs: int, inputs: int) -> ParamTable:
    """Specs of one residual block: `conv1`, `conv2` and, where the width changes, `shortcut`."""
    table = conv2d("conv1", f"{key}.conv1.conv", outputs, inputs)
    table += conv2d("conv2", f"{key}.conv2.conv", outputs, outputs)
    if outputs != inputs:
        table += conv2d("shortcut", f"{key}.nin_shortcut.conv", outputs, inputs, (1, 1))
    return table


def middle(key: str, channels: int) -> list[ParamTable]:
    """Specs of the two residual blocks at the coarsest level."""
    return [residual_block(f"{key}.mid.block_{number}", channels, channels) for number in (1, 2)]


def numbered(name: str, blocks: list[ParamTable]) -> ParamTable:
    """The blocks' specs under `name.0`, `name.1`, ..."""
    return tuple(spec for i, block in enumerate(blocks) for spec in prefixed(f"{name}.{i}", block))
