"""Configuration of the vocoder."""

from __future__ import annotations

from typing import Literal

from ltxbuild.model.config.section import Section


class GeneratorConfig(Section):
    """What both waveform generators have: the vocoder proper and its bandwidth extension."""

    upsample_initial_channel: int
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3
    resblock: Literal["AMP1"]
    stereo: Literal[True]
    activation: Literal["snakebeta"]
    use_bias_at_final: Literal[False] = False


class FirstConfig(GeneratorConfig):
    """The vocoder proper, whose waveform is clamped; without `use_tanh_at_final` it would be a tanh."""

    use_tanh_at_final: Literal[False]
    apply_final_activation: Literal[True] = True


class BandwidthConfig(GeneratorConfig):
    """The bandwidth extension: a generator without a final activation, and the spectrogram it reads."""

    apply_final_activation: Literal[False] = False
    input_sampling_rate: int
    output_sampling_rate: int
    hop_length: int
    n_fft: int
    num_mels: int


class VocoderConfig(Section):
    """The `vocoder` section."""

    vocoder: FirstConfig
    bwe: BandwidthConfig
