"""Programs of the sound path."""

from __future__ import annotations

from functools import partial
from typing import Any

from ltxbuild.compiler.lower import Tensor, Traceable
from ltxbuild.components import ModelConfig
from ltxbuild.model import audio_decoder as decoder
from ltxbuild.model import vocoder as model
from ltxbuild.plan.programspec import Forms
from ltxbuild.programs.shapes import one_to_one


def audio_decoder(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """Audio latent to mel spectrogram."""
    audio = config.ltx.audio_vae
    cells = config.ltx.transformer.audio_in_channels // audio.z_channels
    latent = Tensor("latent", (1, audio.z_channels, size["audio"], cells), dtype)
    return one_to_one(partial(decoder.decode, config=audio, form=forms.convolution), latent, "mel")


def vocoder(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """Mel spectrogram to waveform `[2, N]`, f32."""
    audio = config.ltx.audio_vae
    mel = Tensor("mel", (1, audio.out_ch, size["mel"], audio.mel_bins), dtype)
    vocode = partial(model.vocode, config=config.ltx.vocoder, form=forms.convolution)
    return one_to_one(vocode, mel, "waveform")
