"""Programs of the denoising stages."""

from __future__ import annotations

from functools import partial
from typing import Any

from ltxbuild.components import ModelConfig
from ltxbuild.lower import Tensor, Traceable
from ltxbuild.model import denoise as stages
from ltxbuild.model.layers import AttentionKind
from ltxbuild.model.positions import Geometry

LATENTS = ("latent.video", "latent.audio")


def denoise(size: dict[str, Any], config: ModelConfig, dtype: str, kind: AttentionKind) -> Traceable:
    """A whole stage from noise, the loop inside."""
    tensors = (*_tokens(size, config, dtype), *_context(size, config, dtype), _sigmas(size))
    run = partial(stages.denoise, config=config.ltx.transformer, geometry=_geometry(size), kind=kind)
    return Traceable(run, tensors, LATENTS)


def denoise_from(size: dict[str, Any], config: ModelConfig, dtype: str, kind: AttentionKind) -> Traceable:
    """A whole stage from noised latents, the loop inside."""
    tensors = (
        *_latents(size, config, dtype),
        *_tokens(size, config, dtype),
        *_context(size, config, dtype),
        _sigmas(size),
    )
    run = partial(stages.denoise_from, config=config.ltx.transformer, geometry=_geometry(size), kind=kind)
    return Traceable(run, tensors, LATENTS)


def denoise_step(size: dict[str, Any], config: ModelConfig, dtype: str, kind: AttentionKind) -> Traceable:
    """One step of a stage."""
    run = partial(stages.denoise_step, config=config.ltx.transformer, geometry=_geometry(size), kind=kind)
    sigmas = (Tensor("sigma", (1,), "float32"), Tensor("sigma_next", (1,), "float32"))
    tensors = (*_tokens(size, config, dtype), *sigmas, *_context(size, config, dtype))
    return Traceable(run, tensors, ("video", "audio"))


def mix_noise(size: dict[str, Any], config: ModelConfig, dtype: str, kind: AttentionKind) -> Traceable:
    """Where a stage from given latents starts, as tokens."""
    tensors = (*_latents(size, config, dtype), *_tokens(size, config, dtype), _sigmas(size))
    return Traceable(lambda _, *arrays: stages.mix_noise(*arrays), tensors, ("video", "audio"))


def unpatchify(size: dict[str, Any], config: ModelConfig, dtype: str, kind: AttentionKind) -> Traceable:
    """Tokens back to latents."""
    run = partial(stages.unpatchify, geometry=_geometry(size))
    return Traceable(lambda _, *arrays: run(*arrays), _tokens(size, config, dtype), LATENTS)


def _geometry(size: dict[str, Any]) -> Geometry:
    return Geometry(size["frames"], size["height"], size["width"], size["audio"], size["fps"])


def _tokens(size: dict[str, Any], config: ModelConfig, dtype: str) -> tuple[Tensor, Tensor]:
    """The noisy tokens of both modalities; their memory becomes the result's."""
    transformer = config.ltx.transformer
    return (
        Tensor("video", (1, _geometry(size).tokens, transformer.in_channels), dtype, donated=True),
        Tensor("audio", (1, size["audio"], transformer.audio_in_channels), dtype, donated=True),
    )


def _latents(size: dict[str, Any], config: ModelConfig, dtype: str) -> tuple[Tensor, Tensor]:
    audio = config.ltx.audio_vae
    grid = (size["frames"], size["height"], size["width"])
    cells = config.ltx.transformer.audio_in_channels // audio.z_channels
    return (
        Tensor("start.video", (1, config.ltx.vae.latent_channels, *grid), dtype),
        Tensor("start.audio", (1, audio.z_channels, size["audio"], cells), dtype),
    )


def _context(size: dict[str, Any], config: ModelConfig, dtype: str) -> tuple[Tensor, Tensor]:
    transformer = config.ltx.transformer
    return (
        Tensor("context.video", (1, size["length"], transformer.video_dim), dtype),
        Tensor("context.audio", (1, size["length"], transformer.audio_dim), dtype),
    )


def _sigmas(size: dict[str, Any]) -> Tensor:
    return Tensor("sigmas", (size["steps"] + 1,), "float32")
