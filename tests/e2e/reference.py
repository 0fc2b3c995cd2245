"""The whole system in torch: published modules, joined by the official pipelines' sampler, noiser and tiling.

Nothing of ltxbuild is used here. Where the published release computes less exactly than later ones, the later
way is taken and named beside the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from oracles import import_oracles
from torch import Tensor

import_oracles()

from ltx_core.components.diffusion_steps import EulerDiffusionStep  # noqa: E402
from ltx_core.components.patchifiers import (  # noqa: E402
    AudioPatchifier,
    VideoLatentPatchifier,
    get_pixel_coords,
)
from ltx_core.guidance.perturbations import BatchedPerturbationConfig  # noqa: E402
from ltx_core.model.transformer.modality import Modality  # noqa: E402
from ltx_core.model.transformer.model import X0Model  # noqa: E402
from ltx_core.model.upsampler.model import upsample_video  # noqa: E402
from ltx_core.model.video_vae.tiling import (  # noqa: E402
    SpatialTilingConfig,
    TemporalTilingConfig,
    TilingConfig,
)
from ltx_core.text_encoders.gemma.embeddings_processor import EmbeddingsProcessor  # noqa: E402
from ltx_core.text_encoders.gemma.encoders.base_encoder import GemmaTextEncoder  # noqa: E402
from ltx_core.types import (  # noqa: E402
    AudioLatentShape,
    SpatioTemporalScaleFactors,
    VideoLatentShape,
)

Pair = tuple[Tensor, Tensor]
"""Video, audio."""

TEXT_LENGTH = 1024
STAGE_1 = (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0)
STAGE_2 = (0.909375, 0.725, 0.421875, 0.0)
TILING = TilingConfig(SpatialTilingConfig(768, 64), TemporalTilingConfig(80, 24))


class Files(NamedTuple):
    """A checkpoint."""

    model: Path
    gemma: Path
    upsampler: Path


class Size(NamedTuple):
    """Size of a video in pixels."""

    height: int
    width: int
    frames: int
    fps: float

    def latents(self, divisor: int = 1) -> tuple[VideoLatentShape, AudioLatentShape]:
        """Latent shapes at `1 / divisor` of the resolution; 25 audio latents per second, halves to even."""
        cells = (self.height // (32 * divisor), self.width // (32 * divisor))
        video = VideoLatentShape(1, 128, (self.frames - 1) // 8 + 1, *cells)
        return video, AudioLatentShape(1, 8, round(self.frames / self.fps * 25), 16)


def noise(size: Size, *, two_stage: bool, seed: int = 0) -> dict[str, Tensor]:
    """Random start of every stage as patchified tokens, rounded to bf16 so that it suits both precisions."""
    generator = torch.Generator().manual_seed(seed)
    divisors = {"stage1": 2, "stage2": 1} if two_stage else {"stage1": 1}
    drawn = {}
    for stage, divisor in divisors.items():
        for name, shape in zip(("video", "audio"), size.latents(divisor), strict=True):
            tokens = (1, shape.token_count(), 128)
            drawn[f"noise.{stage}.{name}"] = torch.randn(tokens, generator=generator, dtype=torch.bfloat16)
    return drawn


@dataclass(frozen=True)
class Reference:
    """The loaded modules.

    Attributes:
        dtype: What is computed in; the vocoder computes in f32 with weights rounded to bf16.
    """

    dtype: torch.dtype
    text_encoder: GemmaTextEncoder
    embeddings: EmbeddingsProcessor
    transformer: X0Model
    upsampler: torch.nn.Module
    video_encoder: torch.nn.Module
    video_decoder: torch.nn.Module
    audio_decoder: torch.nn.Module
    vocoder: torch.nn.Module

    @torch.inference_mode()
    def encode(self, prompt: str) -> Pair:
        """Contexts of both modalities `[1, 1024, D]`."""
        states, mask = self.text_encoder.encode(prompt)
        out = self.embeddings.process_hidden_states(states, mask)
        return out.video_encoding, out.audio_encoding

    @torch.inference_mode()
    def denoise(
        self, contexts: Pair, start: Pair, sigmas: tuple[float, ...], size: Size, divisor: int = 1
    ) -> Pair:
        """All steps of a stage: tokens at noise level `sigmas[0]` to latents."""
        shapes = size.latents(divisor)
        places = tuple(bounds.to(start[0].device) for bounds in positions(shapes, size.fps))
        schedule = torch.tensor(sigmas, dtype=torch.float32)
        state = start
        for index in range(len(sigmas) - 1):
            video, audio = (
                self._modality(tokens, schedule[index], where, context)
                for tokens, where, context in zip(state, places, contexts, strict=True)
            )
            clean = self.transformer(video, audio, BatchedPerturbationConfig.empty(1))
            state = tuple(
                EulerDiffusionStep().step(x, x0, schedule, index) for x, x0 in zip(state, clean, strict=True)
            )
        patchifiers = (VideoLatentPatchifier(1), AudioPatchifier(1))
        video, audio = (
            patchifier.unpatchify(tokens, shape)
            for patchifier, tokens, shape in zip(patchifiers, state, shapes, strict=True)
        )
        return video, audio

    def _modality(self, tokens: Tensor, sigma: Tensor, positions: Tensor, context: Tensor) -> Modality:
        timesteps = sigma.expand(1, tokens.shape[1], 1)
        return Modality(tokens, sigma.expand(1), timesteps, positions, context)

    @torch.inference_mode()
    def upsample(self, latent: Tensor) -> Tensor:
        """Latent of twice the height and width, normalised like its input."""
        return upsample_video(latent, self.video_encoder, self.upsampler)

    @torch.inference_mode()
    def frames(self, latent: Tensor) -> Tensor:
        """Frames uint8 `[F, H, W, 3]`, decoded in tiles.

        The published tiling rounds its masks to the dtype and divides by their sum; later releases keep the
        masks in f32, and they sum to one. Both are the same where there is one tile, or in f32.
        """
        chunks = list(self.video_decoder.tiled_decode(latent, TILING))
        unit = ((torch.cat(chunks, dim=2)[0] + 1) * 0.5).clamp(0, 1)
        return (unit.float() * 255).to(torch.uint8).permute(1, 2, 3, 0).contiguous()

    @torch.inference_mode()
    def waveform(self, latent: Tensor) -> Tensor:
        """Waveform f32 `[2, N]`, rounded once to the dtype of the latent."""
        mel = self.audio_decoder(latent)
        return self.vocoder(mel.float()).squeeze(0).to(mel.dtype).float()

    def run(
        self, prompt: str, noises: Mapping[str, Tensor], size: Size, *, two_stage: bool
    ) -> dict[str, Tensor]:
        """Every named tensor of a distilled pipeline."""
        start = {name: tensor.to(self.dtype) for name, tensor in noises.items()}
        contexts = self.encode(prompt)
        made = dict(zip(("context.video", "context.audio"), contexts, strict=True))
        pure = (start["noise.stage1.video"], start["noise.stage1.audio"])
        video, audio = self.denoise(contexts, pure, STAGE_1, size, 2 if two_stage else 1)
        made |= {"latent.stage1.video": video, "latent.stage1.audio": audio}
        if two_stage:
            upscaled = self.upsample(video)
            noisy = (
                mix(VideoLatentPatchifier(1).patchify(upscaled), start["noise.stage2.video"], STAGE_2[0]),
                mix(AudioPatchifier(1).patchify(audio), start["noise.stage2.audio"], STAGE_2[0]),
            )
            video, audio = self.denoise(contexts, noisy, STAGE_2, size)
            made |= {"latent.upscaled": upscaled, "latent.stage2.video": video, "latent.stage2.audio": audio}
        return made | {"frames": self.frames(video), "waveform": self.waveform(audio)}


def mix(clean: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Noise to a level: interpolated in f32, rounded once.

    The published noiser adds two products; later releases interpolate.
    """
    return torch.lerp(clean.float(), noise.float(), sigma).to(clean.dtype)


def positions(shapes: tuple[VideoLatentShape, AudioLatentShape], fps: float) -> Pair:
    """Bounds of every token in seconds and pixels. The published tools round those of video to the dtype."""
    cells = VideoLatentPatchifier(1).get_patch_grid_bounds(shapes[0])
    video = get_pixel_coords(cells, SpatioTemporalScaleFactors.default(), causal_fix=True).float()
    video[:, 0] = video[:, 0] / fps
    return video, AudioPatchifier(1).get_patch_grid_bounds(shapes[1])
