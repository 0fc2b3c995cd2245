"""Programs of the video VAE."""

from __future__ import annotations

from functools import partial
from typing import Any

from ltxbuild.compiler.lower import Tensor, Traceable
from ltxbuild.components import ModelConfig
from ltxbuild.model import video_decoder as decoder
from ltxbuild.model import video_encoder as encoder
from ltxbuild.plan.programspec import Forms
from ltxbuild.programs.shapes import one_to_one, video_latent


def video_decoder(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """One latent tile `[1, C, t, h, w]` to frames `[8 t - 7, 32 h, 32 w, 3]`."""
    decode = partial(decoder.decode, config=config.ltx.vae, form=forms.convolution)
    return one_to_one(decode, video_latent(size, config, dtype), "frames")


def video_encoder(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """One image `[1, 3, 1, H, W]` in [-1, 1] to its latent `[1, C, 1, H / 32, W / 32]`."""
    vae = config.ltx.vae
    image = Tensor("image", (1, vae.in_channels, 1, size["height"], size["width"]), dtype)
    return one_to_one(partial(encoder.encode, config=vae, form=forms.convolution), image, "latent")
