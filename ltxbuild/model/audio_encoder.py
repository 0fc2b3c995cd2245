"""The audio VAE's encoder: its parameters alone.

Generation never encodes sound, but every official checkpoint holds these tensors: they are named here so
that a checkpoint can be checked, and written, completely.
"""

from __future__ import annotations

from ltxbuild.model.audio_vae import level_widths, middle, numbered, residual_block
from ltxbuild.model.config import AudioVaeConfig
from ltxbuild.model.conv import conv2d
from ltxbuild.model.params import ParamTable

KEY = "audio_vae.encoder"


def params(config: AudioVaeConfig) -> ParamTable:
    """Every tensor under `audio_vae.encoder.`."""
    table = conv2d("conv_in", f"{KEY}.conv_in.conv", config.ch, config.in_channels)
    widths = level_widths(config)
    for level, (inputs, outputs) in enumerate(zip((config.ch, *widths), widths, strict=False)):
        name, key = f"down.{level}", f"{KEY}.down.{level}"
        blocks = [
            residual_block(f"{key}.block.{i}", outputs, outputs if i else inputs)
            for i in range(config.num_res_blocks)
        ]
        table += numbered(name, blocks)
        if level < len(widths) - 1:
            table += conv2d(f"{name}.downsample", f"{key}.downsample.conv", outputs, outputs)
    table += numbered("mid", middle(KEY, widths[-1]))
    return table + conv2d("conv_out", f"{KEY}.conv_out.conv", 2 * config.z_channels, widths[-1])
