"""Programs of the video VAE."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from jax import Array

from ltxbuild.compiler.lower import Tensor, Traceable
from ltxbuild.components import ModelConfig
from ltxbuild.model import video_decoder as decoder
from ltxbuild.model import video_encoder as encoder
from ltxbuild.model.axes import on_each_device
from ltxbuild.model.layers import Params
from ltxbuild.plan.programspec import Forms
from ltxbuild.programs.shapes import one_to_one, video_latent


def video_decoder(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """Latent tiles `[N, C, t, h, w]`, one for each device, to frames `[N, 8 t - 7, 32 h, 32 w, 3]`."""
    one = video_latent(size, config, dtype)
    tiles = replace(one, shape=(size["tiles"], *one.shape[1:]), axes=("tiles", None, None, None, None))

    def one_tile(params: Params, tile: Array) -> Array:
        return decoder.decode(params, tile, config.ltx.vae, forms.convolution)[None]

    def decode(params: Params, latent: Array) -> Array:
        return on_each_device(one_tile, ((), ("tiles",)), ("tiles",))(params, latent)

    return one_to_one(decode, tiles, "frames")


def video_encoder(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """One image `[1, 3, 1, H, W]` in [-1, 1] to its latent `[1, C, 1, H / 32, W / 32]`."""
    vae = config.ltx.vae
    image = Tensor("image", (1, vae.in_channels, 1, size["height"], size["width"]), dtype)
    return one_to_one(partial(encoder.encode, config=vae, form=forms.convolution), image, "latent")
