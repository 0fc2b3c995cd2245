"""The denoising programs: a whole stage in one program, and the same stage step by step."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from ltxbuild.model import adaln, latents, sampler, transformer
from ltxbuild.model.config import TransformerConfig
from ltxbuild.model.layers import AttentionKind, Params
from ltxbuild.model.positions import Geometry, RopeTables, rope_tables
from ltxbuild.model.sampler import Latents


def denoise(
    params: Params,
    noise_video: Array,
    noise_audio: Array,
    context_video: Array,
    context_audio: Array,
    sigmas: Array,
    *,
    config: TransformerConfig,
    geometry: Geometry,
    kind: AttentionKind = "plain",
) -> Latents:
    """A stage that starts from pure noise.

    Args:
        params: Tree of `transformer.params`; `blocks` may also be a sequence of per-block trees.
        noise_video: `[B, T, C]`, T as `geometry.tokens`; its dtype is what is computed in.
        noise_audio: `[B, A, C]`.
        context_video: Text for the video tokens, `[B, S, D]`.
        context_audio: Text for the audio tokens, `[B, S, Da]`.
        sigmas: `[steps + 1]` f32.
        config: Sizes.
        geometry: Size of the latents.
        kind: Implementation of the attention.

    Returns:
        Latents of video `[B, C, F, H, W]` and audio `[B, 8, A, 16]`.
    """
    ropes = rope_tables(config, geometry, noise_video.dtype)
    predict = _predictor(params, context_video, context_audio, ropes, config, kind)
    return unpatchify(*sampler.sample(predict, (noise_video, noise_audio), sigmas), geometry=geometry)


def denoise_from(
    params: Params,
    start_video: Array,
    start_audio: Array,
    noise_video: Array,
    noise_audio: Array,
    context_video: Array,
    context_audio: Array,
    sigmas: Array,
    *,
    config: TransformerConfig,
    geometry: Geometry,
    kind: AttentionKind = "plain",
) -> Latents:
    """A stage that starts from given latents, noised to the first sigma.

    Args and result are those of `denoise`, with `start_video` `[B, C, F, H, W]` and `start_audio`
    `[B, 8, A, 16]` before the noise.
    """
    video, audio = mix_noise(start_video, start_audio, noise_video, noise_audio, sigmas)
    return denoise(
        params,
        video,
        audio,
        context_video,
        context_audio,
        sigmas,
        config=config,
        geometry=geometry,
        kind=kind,
    )


def denoise_step(
    params: Params,
    video: Array,
    audio: Array,
    sigma: Array,
    sigma_next: Array,
    context_video: Array,
    context_audio: Array,
    *,
    config: TransformerConfig,
    geometry: Geometry,
    kind: AttentionKind = "plain",
) -> Latents:
    """One step of a stage, for hosts that drive the loop themselves.

    Args:
        params: See `denoise`.
        video: Tokens at noise level `sigma`, `[B, T, C]`.
        audio: `[B, A, C]`.
        sigma: `[1]` f32.
        sigma_next: `[1]` f32.
        context_video: See `denoise`.
        context_audio: See `denoise`.
        config: Sizes.
        geometry: Size of the latents.
        kind: Implementation of the attention.

    Returns:
        Tokens at noise level `sigma_next`, shaped as they came.
    """
    ropes = rope_tables(config, geometry, video.dtype)
    predict = _predictor(params, context_video, context_audio, ropes, config, kind)
    return sampler.step(predict, (video, audio), sigma, sigma_next)


def _predictor(
    params: Params,
    context_video: Array,
    context_audio: Array,
    ropes: RopeTables,
    config: TransformerConfig,
    kind: AttentionKind,
) -> sampler.Denoise:
    """The transformer as the sampler sees it: all tokens of a step share one sigma."""

    def predict(noisy: Latents, sigma: Array) -> Latents:
        video, audio = noisy
        times = adaln.uniform(jnp.broadcast_to(sigma, (video.shape[0],)))
        velocity_video, velocity_audio = transformer.velocity(
            params, video, audio, context_video, context_audio, times, times, ropes, config=config, kind=kind
        )
        return (
            transformer.to_denoised(video, velocity_video, times),
            transformer.to_denoised(audio, velocity_audio, times),
        )

    return predict


def mix_noise(
    start_video: Array, start_audio: Array, noise_video: Array, noise_audio: Array, sigmas: Array
) -> Latents:
    """Latents as tokens, noised to `sigmas[0]`: where a stage from given latents starts.

    Args:
        start_video: `[B, C, F, H, W]`.
        start_audio: `[B, 8, A, 16]`.
        noise_video: `[B, F * H * W, C]`.
        noise_audio: `[B, A, C]`.
        sigmas: `[steps + 1]` f32.
    """
    return (
        latents.mix_noise(latents.patchify_video(start_video), noise_video, sigmas[0]),
        latents.mix_noise(latents.patchify_audio(start_audio), noise_audio, sigmas[0]),
    )


def unpatchify(video: Array, audio: Array, *, geometry: Geometry) -> Latents:
    """Tokens `[B, T, C]` and `[B, A, C]` to latents `[B, C, F, H, W]` and `[B, 8, A, 16]`."""
    return latents.unpatchify_video(video, geometry), latents.unpatchify_audio(audio)
