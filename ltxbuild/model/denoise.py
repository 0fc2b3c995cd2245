"""The denoising programs: a whole stage in one program, and the same stage step by step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from ltxbuild.model import adaln, conditioning, latents, sampler, transformer
from ltxbuild.model.block import WHOLE, Perturbation
from ltxbuild.model.conditioning import Given, Images
from ltxbuild.model.config import TransformerConfig
from ltxbuild.model.geometry import Geometry
from ltxbuild.model.guidance import Guidance, Scales, Text, arrange, guide
from ltxbuild.model.layers import AttentionKind, Params
from ltxbuild.model.positions import RopeTables, rope_tables
from ltxbuild.model.sampler import Latents


@dataclass(frozen=True, slots=True)
class Stage:
    """What is fixed when a stage's program is compiled.

    Attributes:
        config: Sizes of the model.
        geometry: Size of the latents.
        kind: Implementation of the attention.
        guidance: Passes of a step; None for a single, unguided one.
        stride: The model runs at every `stride`-th step; the steps between use its last prediction.
    """

    config: TransformerConfig
    geometry: Geometry
    kind: AttentionKind = "plain"
    guidance: Guidance | None = None
    stride: int = 1


class Inputs(NamedTuple):
    """What a stage is told.

    Attributes:
        context: Text for the video tokens `[B, S, D]` and for the audio tokens `[B, S, Da]`.
        negative: The same of the negative prompt, if the stage has a pass for it.
        scales: Guidance of video and of audio, if the stage is guided.
        images: Images, if the stage takes any.
        ropes: Rotary tables; None if the program makes them itself.
    """

    context: Text
    negative: Text | None = None
    scales: Scales | None = None
    images: Images | None = None
    ropes: RopeTables | None = None


def denoise(params: Params, noise: Latents, told: Inputs, sigmas: Array, *, stage: Stage) -> Latents:
    """A stage that starts from pure noise.

    Args:
        params: Tree of `transformer.params`; `blocks` may also be a sequence of per-block trees.
        noise: Video `[B, T, C]` (T with the tokens of the keyframes) and audio `[B, A, C]`; its dtype is what
            is computed in.
        told: Text, guidance and images.
        sigmas: `[steps + 1]` f32.
        stage: What is fixed.

    Returns:
        Latents of video `[B, C, F, H, W]` and audio `[B, 8, A, 16]`.
    """
    start = begin(noise, told.images, stage=stage)
    return _denoised(params, start, told, sigmas, stage)


def denoise_from(
    params: Params, start: Latents, noise: Latents, told: Inputs, sigmas: Array, *, stage: Stage
) -> Latents:
    """A stage that starts from given latents, noised to the first sigma.

    Args and result are those of `denoise`, with `start` of video `[B, C, F, H, W]` and audio `[B, 8, A, 16]`
    before the noise.
    """
    state = begin_from(start, noise, told.images, sigmas, stage=stage)
    return _denoised(params, state, told, sigmas, stage)


def _denoised(params: Params, start: Latents, told: Inputs, sigmas: Array, stage: Stage) -> Latents:
    predict = _predictor(params, told, stage)
    return unpatchify(*sampler.sample(predict, start, sigmas, stage.stride), geometry=stage.geometry)


def denoise_step(
    params: Params, state: Latents, sigma: Array, following: Array, told: Inputs, *, stage: Stage
) -> Latents:
    """One call of a stage, for hosts that drive the loop themselves.

    Args:
        params: See `denoise`.
        state: Video `[B, T, C]` and audio `[B, A, C]` at noise level `sigma`.
        sigma: `[1]` f32.
        following: The sigmas up to the next call, `[stride]` f32.
        told: See `denoise`.
        stage: What is fixed.

    Returns:
        Tokens at the last noise level, shaped as they came.
    """
    return sampler.step(_predictor(params, told, stage), state, sigma, following)


def begin(noise: Latents, images: Images | None, *, stage: Stage) -> Latents:
    """Where a stage from pure noise starts: the noise, but for what images give.

    Args:
        noise: See `denoise`.
        images: See `Inputs`.
        stage: What is fixed.
    """
    video, audio = noise
    state = _given(images, stage, video)
    return (video if state is None else conditioning.noised(state, video)), audio


def begin_from(
    start: Latents, noise: Latents, images: Images | None, sigmas: Array, *, stage: Stage
) -> Latents:
    """Where a stage from given latents starts: tokens noised to `sigmas[0]`, less where images are given.

    Args:
        start: See `denoise_from`.
        noise: See `denoise`.
        images: See `Inputs`.
        sigmas: `[steps + 1]` f32.
        stage: What is fixed.
    """
    video, audio = latents.patchify_video(start[0]), latents.patchify_audio(start[1])
    state = _given(images, stage, video)
    # Tokens of keyframes start from nothing: the image comes in with the share that it is given.
    video = jnp.pad(video, ((0, 0), (0, noise[0].shape[1] - video.shape[1]), (0, 0)))
    mixed = latents.interpolate(video, noise[0], sigmas[0])
    mixed = mixed.astype(video.dtype) if state is None else conditioning.noised(state, mixed)
    return mixed, latents.mix_noise(audio, noise[1], sigmas[0])


def unpatchify(video: Array, audio: Array, *, geometry: Geometry) -> Latents:
    """Tokens to latents `[B, C, F, H, W]` and `[B, 8, A, 16]`; tokens of keyframes are dropped."""
    kept = video[:, : geometry.tokens]
    return latents.unpatchify_video(kept, geometry), latents.unpatchify_audio(audio)


def _given(images: Images | None, stage: Stage, like: Array) -> Given | None:
    if images is None:
        return None
    return conditioning.given(images, stage.geometry, like.dtype)


def _predictor(params: Params, told: Inputs, stage: Stage) -> sampler.Denoise:
    """The model as the sampler sees it, with guidance and images."""
    state = _given(told.images, stage, told.context[0])
    keyframes = None if state is None else state.keyframes
    ropes = told.ropes
    if ropes is None:
        ropes = rope_tables(stage.config, stage.geometry, told.context[0].dtype, keyframes)
    model = partial(_model, params, ropes, state, stage)
    if stage.guidance is None:
        return lambda noisy, sigma: _blended(state, model(sigma, noisy, told.context, WHOLE))
    guidance, scales = stage.guidance, told.scales
    assert scales is not None
    passes = arrange(guidance, told.context, told.negative, scales, stage.config.num_layers)
    visible = None if state is None else state.visible

    def predict(noisy: Latents, sigma: Array) -> Latents:
        return _blended(state, guide(partial(model, sigma), noisy, passes, scales, guidance, visible))

    return predict


def _model(
    params: Params,
    ropes: RopeTables,
    state: Given | None,
    stage: Stage,
    sigma: Array,
    noisy: Latents,
    text: Text,
    without: Perturbation,
) -> Latents:
    """Clean tokens, from one pass through the transformer."""
    times_audio = adaln.uniform(sigma)
    times_video = times_audio if state is None else conditioning.timesteps(state, sigma)
    velocity = transformer.velocity(
        params,
        *noisy,
        *text,
        times_video,
        times_audio,
        ropes,
        config=stage.config,
        kind=stage.kind,
        visible=None if state is None else state.visible,
        without=without,
    )
    return (
        transformer.to_denoised(noisy[0], velocity[0], times_video),
        transformer.to_denoised(noisy[1], velocity[1], times_audio),
    )


def _blended(state: Given | None, clean: Latents) -> Latents:
    return clean if state is None else (conditioning.blended(state, clean[0]), clean[1])
