"""Bytes of the tensors that a program takes, from its geometry alone.

The programs themselves say it exactly (`programs.*`), but importing them takes jax; a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltxbuild.components import ModelConfig
from ltxbuild.plan.programspec import ProgramSpec

F32 = 4
TOKEN, FLAG = 4, 1
"""Bytes of a token id and of a mask's element."""
SCALES = 2 * 4
"""Guidance scales of video and audio together."""


def tensor_bytes(spec: ProgramSpec, config: ModelConfig, item: int, heads: int) -> int:
    """Bytes of a program's tensor inputs on each device. Only rotary tables are split.

    Args:
        spec: The program.
        config: Of the model.
        item: Bytes of a number in the recipe's precision.
        heads: Devices that heads are split over.
    """
    sizes: dict[str, Any] = dict(spec.geometry)
    model, ltx = config.ltx.transformer, config.ltx
    match spec.kind:
        case "text_encoder":
            return int(sizes["batch"] * sizes["length"] * (TOKEN + FLAG))
        case "connectors":
            width = model.video_dim + model.audio_dim
            return int(sizes["batch"] * sizes["length"] * (item * width + FLAG))
        case "upsampler" | "video_decoder":
            return int(item * ltx.vae.latent_channels * _cells(sizes))
        case "video_encoder":
            return int(item * ltx.vae.in_channels * sizes["height"] * sizes["width"])
        case "audio_decoder":
            return int(item * model.audio_in_channels * sizes["audio"])
        case "vocoder":
            return int(item * ltx.audio_vae.out_ch * ltx.audio_vae.mel_bins * sizes["mel"])
        case "rope_tables":
            return TOKEN * sizes["keyframes"] + TOKEN if "keyframes" in sizes else 0
        case _:
            tables = table_numbers(sizes, config) // heads if "tables" in sizes else 0
            return _denoising(spec.kind, sizes, config, item) + item * tables


def _denoising(kind: str, sizes: dict[str, Any], config: ModelConfig, item: int) -> int:
    model = config.ltx.transformer
    slots = sizes["keyframes"] + 1 if "keyframes" in sizes else 0
    appended = max(slots - 1, 0) * sizes["height"] * sizes["width"]
    audio = sizes["audio"] * model.audio_in_channels
    start = _cells(sizes) * model.in_channels + audio
    tokens = start + appended * model.in_channels
    numbers = tokens + (start if kind in ("denoise_from", "mix_noise") else 0)
    numbers -= audio if kind == "mix_images" else 0
    small = F32 * (sizes["steps"] + 1) if "steps" in sizes else 0
    if kind == "denoise_step":
        small += F32 * (1 + sizes.get("stride", 1))
    if kind != "unpatchify":
        numbers += slots * model.in_channels * sizes["height"] * sizes["width"]
        small += slots * (4 + F32)
    if kind.startswith("denoise"):
        numbers += (1 + sizes.get("negative", 0)) * sizes["length"] * (model.video_dim + model.audio_dim)
        small += SCALES * F32 if "batched" in sizes else 0
    return int(item * numbers + small)


def table_numbers(sizes: dict[str, Any], config: ModelConfig) -> int:
    """Numbers in all rotary tables of a stage: a cosine and a sine for every two of a token's width."""
    model, cells = config.ltx.transformer, sizes["height"] * sizes["width"]
    tokens = _cells(sizes) + sizes.get("keyframes", 0) * cells
    return int(tokens * (model.video_dim + model.audio_dim) + 2 * sizes["audio"] * model.audio_dim)


def batched_passes(sizes: Mapping[str, Any]) -> int:
    """Passes of a guided step that are one batch, by the geometry of its program; 1 without guidance.

    >>> batched_passes({"negative": 1, "stg_blocks": (28,), "isolated": 0, "batched": 1})
    3
    """
    if not sizes.get("batched"):
        return 1
    return 1 + int(sizes["negative"]) + bool(sizes["stg_blocks"]) + int(sizes["isolated"])


def _cells(sizes: dict[str, Any]) -> int:
    return int(sizes["frames"] * sizes["height"] * sizes["width"])
