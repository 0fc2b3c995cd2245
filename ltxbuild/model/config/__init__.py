"""Model configurations, read from the `config` metadata of an official checkpoint.

Sizes come from the checkpoint. Switches that change the arithmetic are literals: a checkpoint of another
generation (LTX-2.0, 2.5) is refused with the field and the value instead of being computed wrongly.
"""

from __future__ import annotations

from ltxbuild.model.config.audio_vae import AudioVaeConfig
from ltxbuild.model.config.gemma import GemmaConfig
from ltxbuild.model.config.section import Section
from ltxbuild.model.config.transformer import TransformerConfig
from ltxbuild.model.config.upsampler import UpsamplerConfig, UpsamplerKind
from ltxbuild.model.config.video_vae import VaeBlock, VideoVaeConfig
from ltxbuild.model.config.vocoder import BandwidthConfig, GeneratorConfig, VocoderConfig

__all__ = [
    "AudioVaeConfig",
    "BandwidthConfig",
    "GemmaConfig",
    "GeneratorConfig",
    "LtxConfig",
    "TransformerConfig",
    "UpsamplerConfig",
    "UpsamplerKind",
    "VaeBlock",
    "VideoVaeConfig",
    "VocoderConfig",
]


class LtxConfig(Section):
    """The whole `config` metadata of a single-file LTX-2.3 checkpoint."""

    transformer: TransformerConfig
    vae: VideoVaeConfig
    audio_vae: AudioVaeConfig
    vocoder: VocoderConfig
