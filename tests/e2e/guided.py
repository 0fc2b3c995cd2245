"""Guided pipelines in the official way: four passes of the model per step, combined by the official guider.

The published guider rounds each of its operations to the dtype; later ones promote to f32 and round once, and
that way is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from oracles import import_oracles
from reference import STAGE_2, Pair, Reference, Size, mix, positions
from torch import Tensor

import_oracles()

from ltx_core.components.diffusion_steps import EulerDiffusionStep  # noqa: E402
from ltx_core.components.guiders import MultiModalGuider, MultiModalGuiderParams  # noqa: E402
from ltx_core.components.patchifiers import AudioPatchifier, VideoLatentPatchifier  # noqa: E402
from ltx_core.components.schedulers import LTX2Scheduler  # noqa: E402
from ltx_core.guidance.perturbations import (  # noqa: E402
    BatchedPerturbationConfig,
    Perturbation,
    PerturbationConfig,
    PerturbationType,
)
from ltx_core.model.transformer.modality import Modality  # noqa: E402

WHOLE = PerturbationConfig.empty()
ISOLATED = PerturbationConfig(
    [
        Perturbation(PerturbationType.SKIP_A2V_CROSS_ATTN, None),
        Perturbation(PerturbationType.SKIP_V2A_CROSS_ATTN, None),
    ]
)


class Settings(NamedTuple):
    """Guidance of a run.

    Attributes:
        negative: Negative prompt.
        steps: Of the schedule.
        blocks: Without self-attention in the perturbed pass.
        video: cfg, stg, modality, rescale.
        audio: The same.
    """

    negative: str
    steps: int
    blocks: list[int]
    video: tuple[float, float, float, float]
    audio: tuple[float, float, float, float]

    @property
    def guiders(self) -> list[MultiModalGuider]:
        """The official guiders of video and audio."""
        return [
            MultiModalGuider(MultiModalGuiderParams(cfg, stg, self.blocks, rescale, modality))
            for cfg, stg, modality, rescale in (self.video, self.audio)
        ]

    @property
    def perturbed(self) -> PerturbationConfig:
        """Without self-attention, where a modality's stg scale is not zero."""
        video, audio = (self.blocks if guider.do_perturbed_generation() else [] for guider in self.guiders)
        return PerturbationConfig(
            [
                Perturbation(PerturbationType.SKIP_VIDEO_SELF_ATTN, video),
                Perturbation(PerturbationType.SKIP_AUDIO_SELF_ATTN, audio),
            ]
        )


@torch.inference_mode()
def run(
    reference: Reference,
    prompt: str,
    noises: Mapping[str, Tensor],
    size: Size,
    settings: Settings,
    distilled: Any | None = None,
) -> dict[str, Tensor]:
    """Every named tensor of a guided pipeline; of two stages if there is a transformer for the second."""
    start = {name: tensor.to(reference.dtype) for name, tensor in noises.items()}
    contexts, negative = reference.encode(prompt), reference.encode(settings.negative)
    names = ("context.video", "context.audio", "context.negative.video", "context.negative.audio")
    made = dict(zip(names, (*contexts, *negative), strict=True))
    pure = (start["noise.stage1.video"], start["noise.stage1.audio"])
    divisor = 2 if distilled else 1
    video, audio = _denoise(reference, contexts, negative, pure, size, divisor, settings)
    made |= {"latent.stage1.video": video, "latent.stage1.audio": audio}
    heard = audio
    if distilled:
        upscaled = reference.upsample(video)
        noisy = (
            mix(VideoLatentPatchifier(1).patchify(upscaled), start["noise.stage2.video"], STAGE_2[0]),
            mix(AudioPatchifier(1).patchify(audio), start["noise.stage2.audio"], STAGE_2[0]),
        )
        video, audio = replace(reference, transformer=distilled).denoise(contexts, noisy, STAGE_2, size)
        made |= {"latent.upscaled": upscaled, "latent.stage2.video": video, "latent.stage2.audio": audio}
    return made | {"frames": reference.frames(video), "waveform": reference.waveform(heard)}


def _denoise(
    reference: Reference,
    contexts: Pair,
    negative: Pair,
    state: Sequence[Tensor],
    size: Size,
    divisor: int,
    settings: Settings,
) -> Pair:
    shapes = size.latents(divisor)
    places = positions(shapes, size.fps)
    schedule = LTX2Scheduler().execute(settings.steps)

    def predict(sigma: Tensor, texts: Pair, without: PerturbationConfig) -> list[Tensor]:
        video, audio = (
            Modality(x, sigma.expand(1), sigma.expand(1, x.shape[1], 1), where, text)
            for x, where, text in zip(state, places, texts, strict=True)
        )
        return list(reference.transformer(video, audio, BatchedPerturbationConfig([without])))

    for index, sigma in enumerate(schedule[:-1]):
        passes = [
            predict(sigma, contexts, WHOLE),
            predict(sigma, negative, WHOLE),
            predict(sigma, contexts, settings.perturbed),
            predict(sigma, contexts, ISOLATED),
        ]
        clean = [
            guider.calculate(*(each[side].float() for each in passes)).to(reference.dtype)
            for side, guider in enumerate(settings.guiders)
        ]
        state = [EulerDiffusionStep().step(x, d, schedule, index) for x, d in zip(state, clean, strict=True)]
    video = VideoLatentPatchifier(1).unpatchify(state[0], shapes[0])
    return video, AudioPatchifier(1).unpatchify(state[1], shapes[1])
