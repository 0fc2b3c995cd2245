"""The official transformer with tiny random weights, and its inputs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import torch
from jax.typing import DTypeLike
from loading import load, prefixed_state
from oracles import import_oracles, randomize, tiny_config

from ltxbuild.model import transformer
from ltxbuild.model.config import LtxConfig, TransformerConfig
from ltxbuild.model.geometry import Geometry

import_oracles()
from ltx_core.components.patchifiers import (  # noqa: E402
    AudioPatchifier,
    VideoLatentPatchifier,
    get_pixel_coords,
)
from ltx_core.guidance.perturbations import (  # noqa: E402
    BatchedPerturbationConfig,
    PerturbationConfig,
)
from ltx_core.model.transformer.modality import Modality  # noqa: E402
from ltx_core.model.transformer.model_configurator import LTXModelConfigurator  # noqa: E402
from ltx_core.model.transformer.transformer_args import (  # noqa: E402
    MultiModalTransformerArgsPreprocessor,
    TransformerArgs,
)
from ltx_core.types import AudioLatentShape, SpatioTemporalScaleFactors, VideoLatentShape  # noqa: E402

PREFIX = "model.diffusion_model."
GEOMETRY = Geometry(frames=3, height=2, width=3, audio=5, fps=24.0)
TEXT = 6


class Inputs(NamedTuple):
    """Noisy tokens and text of both modalities."""

    video: np.ndarray
    audio: np.ndarray
    context_video: np.ndarray
    context_audio: np.ndarray


def config() -> TransformerConfig:
    """The tiny transformer section."""
    return LtxConfig.model_validate(tiny_config()).transformer


@cache
def official() -> torch.nn.Module:
    """The official transformer with random weights."""
    return randomize(LTXModelConfigurator.from_config(tiny_config()))


def state_dict() -> dict[str, torch.Tensor]:
    """Its weights under the keys of the official file."""
    return prefixed_state(official(), PREFIX)


def params(dtype: DTypeLike = jnp.float32) -> dict[str, Any]:
    """Its weights as our parameter tree."""
    return load(transformer.params(config()), state_dict(), dtype)


def inputs(batch: int = 1, seed: int = 0) -> Inputs:
    """Standard normal tokens and text."""
    rng, sizes = np.random.default_rng(seed), config()
    shapes = (
        (GEOMETRY.tokens, sizes.in_channels),
        (GEOMETRY.audio, sizes.audio_in_channels),
        (TEXT, sizes.video_dim),
        (TEXT, sizes.audio_dim),
    )
    return Inputs(*(rng.standard_normal((batch, *shape), np.float32) for shape in shapes))


def video_positions(geometry: Geometry, batch: int = 1) -> torch.Tensor:
    """Official positions of video tokens, kept in f32."""
    shape = VideoLatentShape(batch, 128, geometry.frames, geometry.height, geometry.width)
    cells = VideoLatentPatchifier(patch_size=1).get_patch_grid_bounds(shape)
    positions = get_pixel_coords(cells, SpatioTemporalScaleFactors(8, 32, 32), causal_fix=True).float()
    positions[:, 0] = positions[:, 0] / geometry.fps
    return positions


def audio_positions(geometry: Geometry, batch: int = 1) -> torch.Tensor:
    """Official positions of audio tokens."""
    shape = AudioLatentShape(batch, 8, geometry.audio, 16)
    return AudioPatchifier(patch_size=1).get_patch_grid_bounds(shape)


class Levels(NamedTuple):
    """Noise levels of one modality: `[B]`, and `[B, T]` or `[B, 1]`."""

    sigma: np.ndarray
    timesteps: np.ndarray


def official_velocity(
    given: Inputs,
    video: Levels,
    audio: Levels,
    perturbations: list[PerturbationConfig] | None = None,
    positions: torch.Tensor | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Velocities of the official transformer.

    Args:
        given: Tokens and text.
        video: Noise levels of the video tokens.
        audio: Noise levels of the audio tokens.
        perturbations: What each sample goes without.
        positions: Of the video tokens, when there are others than those of the grid.
    """
    batch = given.video.shape[0]
    dtype = next(official().parameters()).dtype

    def modality(tokens: np.ndarray, context: np.ndarray, levels: Levels, where: torch.Tensor) -> Modality:
        return Modality(
            latent=torch.from_numpy(tokens).to(dtype),
            sigma=torch.from_numpy(levels.sigma),
            timesteps=torch.from_numpy(levels.timesteps),
            positions=where,
            context=torch.from_numpy(context).to(dtype),
        )

    out = official()(
        modality(
            given.video,
            given.context_video,
            video,
            video_positions(GEOMETRY, batch) if positions is None else positions,
        ),
        modality(given.audio, given.context_audio, audio, audio_positions(GEOMETRY, batch)),
        BatchedPerturbationConfig(perturbations or [PerturbationConfig.empty()] * batch),
    )
    return out[0].float().numpy(), out[1].float().numpy()


def prepare_with_own_timesteps(
    self: MultiModalTransformerArgsPreprocessor, modality: Modality, cross_modality: Modality
) -> TransformerArgs:
    """`prepare` as later releases do it.

    Scale and shift of the attention between audio and video follow the modality's own per-token timesteps;
    the published oracle still takes the other modality's sigma there, as it rightly does for the gate.
    """
    args = _official_prepare(self, modality, cross_modality)
    scaled = modality.timesteps * self.simple_preprocessor.timestep_scale_multiplier
    own, _ = self.cross_scale_shift_adaln(scaled.flatten(), hidden_dtype=modality.latent.dtype)
    return replace(args, cross_scale_shift_timestep=own.view(*scaled.shape, -1))


_official_prepare = MultiModalTransformerArgsPreprocessor.prepare
