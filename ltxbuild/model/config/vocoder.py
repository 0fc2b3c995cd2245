"""Configuration of the vocoder."""

from __future__ import annotations

from typing import Literal

from ltxbuild.model.config.section import Section


class GeneratorConfig(Section):
    """One waveform generator: the vocoder proper or its bandwidth extension."""

    upsample_initial_channel: int
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3
    resblock: Literal["AMP1"]
    stereo: Literal[True]
    activation: Literal["snakebeta"]
    use_tanh_at_final: Literal[False] = False
    use_bias_at_final: Literal[False] = False


class BandwidthConfig(GeneratorConfig):
    """The bandwidth extension: a generator and the spectrogram it reads."""

    input_sampling_rate: int
    output_sampling_rate: int
    hop_length: int
    n_fft: int
    num_mels: int


class VocoderConfig(Section):
    """The `vocoder` section."""

    vocoder: GeneratorConfig
    bwe: BandwidthConfig
