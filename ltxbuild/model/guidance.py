"""Guidance: a step predicts several times, the model whole and impaired, and moves away from the impaired.

What a pass lacks is the prompt's own text (it reads the negative prompt), self-attention in a few blocks, or
the exchange between audio and video. Scales are inputs of the program; which passes there are is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ltxbuild.model.block import Perturbation
from ltxbuild.model.sampler import Latents

Pass = Literal["whole", "negative", "perturbed", "isolated"]
Text = tuple[Array, Array]
"""Text for the video tokens `[B, S, D]` and for the audio tokens `[B, S, Da]`."""
Scales = tuple[Array, Array]
"""Guidance of video and of audio, each f32 `[4]`: cfg, stg, modality, rescale. Neutral are 1, 0, 1, 0."""
Model = Callable[[Latents, Text, Perturbation], Latents]
"""From noisy tokens, text and what samples go without to clean tokens."""


@dataclass(frozen=True, slots=True)
class Guidance:
    """The passes of a guided step.

    Attributes:
        negative: Whether a pass reads the negative prompt.
        stg_blocks: Blocks without self-attention in the perturbed pass; empty for no such pass. It concerns
            those of video and audio whose stg scale is not zero.
        isolated: Whether a pass has no exchange between audio and video.
        batched: All passes as one batch, or one after another in the memory of one.
    """

    negative: bool = False
    stg_blocks: tuple[int, ...] = ()
    isolated: bool = False
    batched: bool = True

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The passes in the order of the batch."""
        found: list[Pass] = ["whole"]
        found += ["negative"] if self.negative else []
        found += ["perturbed"] if self.stg_blocks else []
        found += ["isolated"] if self.isolated else []
        return tuple(found)


class Passes(NamedTuple):
    """What each of the P passes reads and goes without; the same in all steps.

    Attributes:
        text: `[P, B, S, D]` and `[P, B, S, Da]`.
        without: Each part with a leading axis of passes: `[P, blocks, B]`, `[P, blocks, B]`, `[P, B]`.
    """

    text: Text
    without: Perturbation


def arrange(guidance: Guidance, text: Text, negative: Text | None, scales: Scales, blocks: int) -> Passes:
    """Lay out the passes of a model with that many blocks.

    Raises:
        ValueError: There is a negative pass and no negative text.
    """
    passes, batch = guidance.passes, text[0].shape[0]
    if "negative" in passes and negative is None:
        raise ValueError("guidance with a negative pass needs negative text")
    read = [negative if name == "negative" and negative else text for name in passes]
    in_blocks = np.isin(np.arange(blocks), guidance.stg_blocks)
    perturbed = np.array([name == "perturbed" for name in passes])
    flags = np.broadcast_to(perturbed[:, None, None] & in_blocks[:, None], (len(passes), blocks, batch))
    bypass = jnp.asarray(flags)
    isolated = np.repeat([[name == "isolated"] for name in passes], batch, axis=1)
    video, audio = (bypass & (scale[1] != 0) if guidance.stg_blocks else None for scale in scales)
    return Passes(
        (jnp.stack([pair[0] for pair in read]), jnp.stack([pair[1] for pair in read])),
        Perturbation(video, audio, jnp.asarray(isolated) if guidance.isolated else None),
    )


def guide(
    model: Model, noisy: Latents, passes: Passes, scales: Scales, guidance: Guidance, visible: Array | None
) -> Latents:
    """Predict in every pass and combine.

    Args:
        model: Predicts clean tokens.
        noisy: Video `[B, T, C]` and audio `[B, A, C]`.
        passes: What each pass reads and goes without.
        scales: Guidance of video and of audio.
        guidance: Which passes there are.
        visible: Which video tokens count, `[T]` bool; None for all.

    Returns:
        Guided clean tokens, shaped as they came.
    """
    run = _together if guidance.batched else _in_turn
    video, audio = run(model, noisy, passes)
    return (
        combine(guidance.passes, video, scales[0], visible),
        combine(guidance.passes, audio, scales[1], None),
    )


def _together(model: Model, noisy: Latents, passes: Passes) -> Latents:
    count, batch = passes.text[0].shape[:2]

    def merged(x: Array) -> Array:
        return x.reshape(count * batch, *x.shape[2:])

    def in_blocks(flags: Array | None) -> Array | None:
        return None if flags is None else jnp.moveaxis(flags, 0, 1).reshape(-1, count * batch)

    video_self, audio_self, isolated = passes.without
    without = Perturbation(
        in_blocks(video_self), in_blocks(audio_self), None if isolated is None else merged(isolated)
    )
    video, audio = (merged(jnp.broadcast_to(x, (count, *x.shape))) for x in noisy)
    text = merged(passes.text[0]), merged(passes.text[1])
    clean = model((video, audio), text, without)
    return clean[0].reshape(count, *noisy[0].shape), clean[1].reshape(count, *noisy[1].shape)


def _in_turn(model: Model, noisy: Latents, passes: Passes) -> Latents:
    clean: Latents = lax.map(lambda one: model(noisy, *one), passes)
    return clean


def combine(passes: tuple[Pass, ...], clean: Array, scales: Array, visible: Array | None) -> Array:
    """Combine the predictions for one modality in f32, rounded once.

    Args:
        passes: Names in the order of `clean`.
        clean: Clean tokens of each pass, `[P, B, T, C]`.
        scales: `[4]` f32: cfg, stg, modality, rescale.
        visible: Which tokens count in the rescale, `[T]` bool; None for all.

    Returns:
        `[B, T, C]`. With a rescale of r the deviation of the whole tensor is drawn by r towards that of the
        unguided prediction.
    """
    cfg, stg, modality, rescale = scales
    weights = {"negative": cfg - 1, "perturbed": stg, "isolated": modality - 1}
    whole, *impaired = clean.astype(jnp.float32)
    guided = whole
    for name, prediction in zip(passes[1:], impaired, strict=True):
        guided = guided + weights[name] * (whole - prediction)
    factor = rescale * (_deviation(whole, visible) / _deviation(guided, visible)) + (1 - rescale)
    return jnp.where(rescale == 0, guided, guided * factor).astype(clean.dtype)


def _deviation(x: Array, visible: Array | None) -> Array:
    """Unbiased standard deviation of all elements of `[B, T, C]`."""
    if visible is None:
        return jnp.std(x, ddof=1)
    counts = visible[:, None]
    count = jnp.sum(visible) * x.shape[0] * x.shape[2]
    centred = x - jnp.sum(jnp.where(counts, x, 0)) / count
    return jnp.sqrt(jnp.sum(jnp.where(counts, centred * centred, 0)) / (count - 1))
