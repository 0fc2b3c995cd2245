"""Programs of the denoising stages.

Beside sizes, a program's geometry names what a stage is compiled for: `negative`, `stg_blocks`, `isolated`
and `batched` (passes of guidance), `keyframes` (images it takes beside the first frame), `stride` (steps per
prediction), `tables` (it takes the rotary tables). A stage without `batched` is not guided, one without
`keyframes` takes no image at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jax import Array

from ltxbuild.compiler.lower import Tensor, Traceable
from ltxbuild.components import ModelConfig
from ltxbuild.model import denoise as stages
from ltxbuild.model import positions
from ltxbuild.model.conditioning import Images
from ltxbuild.model.denoise import Inputs, Stage
from ltxbuild.model.geometry import Geometry
from ltxbuild.model.guidance import Guidance
from ltxbuild.model.layers import Params
from ltxbuild.model.positions import RopeTables
from ltxbuild.model.sampler import Latents
from ltxbuild.plan.programspec import Forms
from ltxbuild.programs.shapes import attention_kind

LATENTS = ("latent.video", "latent.audio")
TABLES = tuple(f"rope.{name}.{part}" for name in RopeTables._fields for part in ("cos", "sin"))
SCALES = 4
"""Guidance scales of a modality."""


def denoise(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """A whole stage from noise, the loop inside."""
    stage = _stage(size, config, forms)

    def run(params: Params, video: Array, audio: Array, *rest: Array) -> Latents:
        told = _inputs(stage, size, rest[:-1])
        return stages.denoise(params, (video, audio), told, rest[-1], stage=stage)

    tensors = (*_tokens(stage, size, dtype, to_latents=True), *_told(stage, size, dtype), _sigmas(size))
    return Traceable(run, tensors, LATENTS)


def denoise_from(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """A whole stage from noised latents, the loop inside."""
    stage = _stage(size, config, forms)

    def run(params: Params, *arrays: Array) -> Latents:
        told = _inputs(stage, size, arrays[4:-1])
        start, noise = (arrays[0], arrays[1]), (arrays[2], arrays[3])
        return stages.denoise_from(params, start, noise, told, arrays[-1], stage=stage)

    tensors = (
        *_latents(size, config, dtype),
        *_tokens(stage, size, dtype, to_latents=True),
        *_told(stage, size, dtype),
        _sigmas(size),
    )
    return Traceable(run, tensors, LATENTS)


def denoise_step(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """The steps of a stage that share one prediction."""
    stage = _stage(size, config, forms)

    def run(
        params: Params, video: Array, audio: Array, sigma: Array, following: Array, *rest: Array
    ) -> Latents:
        told = _inputs(stage, size, rest)
        return stages.denoise_step(params, (video, audio), sigma, following, told, stage=stage)

    sigmas = (Tensor("sigma", (1,), "float32"), Tensor("sigma_next", (stage.stride,), "float32"))
    return Traceable(
        run, (*_tokens(stage, size, dtype), *sigmas, *_told(stage, size, dtype)), ("video", "audio")
    )


def rope_tables(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """The rotary tables of a stage, for programs that take them."""
    stage = _stage(size, config, forms)

    def run(_: Params, *frame: Array) -> tuple[Array, ...]:
        keyframes = frame[0][1:] if frame else None
        made = positions.rope_tables(stage.config, stage.geometry, dtype, keyframes)
        return tuple(part for table in made for part in table)

    return Traceable(run, _image_tensors(stage, size, dtype)[-2:-1], TABLES)


def mix_images(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """Where the video of a stage from noise starts when images are given, as tokens."""
    stage = _stage(size, config, forms)

    def run(_: Params, video: Array, *images: Array) -> tuple[Array, ...]:
        return (stages.begin((video, video), _images(images), stage=stage)[0],)

    return Traceable(run, (_tokens(stage, size, dtype)[0], *_image_tensors(stage, size, dtype)), ("video",))


def mix_noise(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """Where a stage from given latents starts, as tokens."""
    stage = _stage(size, config, forms)

    def run(_: Params, *arrays: Array) -> Latents:
        images = _images(arrays[4:-1]) if "keyframes" in size else None
        start, noise = (arrays[0], arrays[1]), (arrays[2], arrays[3])
        return stages.begin_from(start, noise, images, arrays[-1], stage=stage)

    tensors = (
        *_latents(size, config, dtype),
        *_tokens(stage, size, dtype),
        *_image_tensors(stage, size, dtype),
        _sigmas(size),
    )
    return Traceable(run, tensors, ("video", "audio"))


def unpatchify(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """Tokens back to latents."""
    stage = _stage(size, config, forms)

    def run(_: Params, video: Array, audio: Array) -> Latents:
        return stages.unpatchify(video, audio, geometry=stage.geometry)

    return Traceable(run, _tokens(stage, size, dtype, to_latents=True), LATENTS)


def _stage(size: dict[str, Any], config: ModelConfig, forms: Forms) -> Stage:
    geometry = Geometry(size["frames"], size["height"], size["width"], size["audio"], size["fps"])
    guidance = None
    if "batched" in size:
        guidance = Guidance(
            negative=bool(size["negative"]),
            stg_blocks=tuple(size["stg_blocks"]),
            isolated=bool(size["isolated"]),
            batched=bool(size["batched"]),
        )
    return Stage(config.ltx.transformer, geometry, attention_kind(forms), guidance, size.get("stride", 1))


def _inputs(stage: Stage, size: dict[str, Any], arrays: Sequence[Array]) -> Inputs:
    """The tensors of `_told` by what they are."""
    left = list(arrays)

    def pair() -> tuple[Array, Array]:
        return left.pop(0), left.pop(0)

    context = pair()
    negative = pair() if stage.guidance and stage.guidance.negative else None
    scales = pair() if stage.guidance else None
    ropes = RopeTables(*(pair() for _ in RopeTables._fields)) if "tables" in size else None
    return Inputs(context, negative, scales, _images(left) if "keyframes" in size else None, ropes)


def _images(arrays: Sequence[Array]) -> Images:
    *latents, frame, left = arrays
    return Images(tuple(latents), frame, left)


def _told(stage: Stage, size: dict[str, Any], dtype: str) -> tuple[Tensor, ...]:
    """Text, guidance, rotary tables and images."""
    config, length = stage.config, size["length"]

    def text(prefix: str) -> tuple[Tensor, Tensor]:
        return (
            Tensor(f"{prefix}.video", (1, length, config.video_dim), dtype),
            Tensor(f"{prefix}.audio", (1, length, config.audio_dim), dtype),
        )

    told = [*text("context")]
    if stage.guidance and stage.guidance.negative:
        told += text("context.negative")
    if stage.guidance:
        told += [Tensor(f"guidance.{side}", (SCALES,), "float32") for side in ("video", "audio")]
    if "tables" in size:
        told += _table_tensors(stage, size, dtype)
    return (*told, *_image_tensors(stage, size, dtype))


def _table_tensors(stage: Stage, size: dict[str, Any], dtype: str) -> tuple[Tensor, ...]:
    """Rotary tables `[tokens, heads, head_dim / 2]`, split by heads like the queries that they turn."""
    config, heads = stage.config, stage.config.num_attention_heads
    video, audio = (tokens.shape[1] for tokens in _tokens(stage, size, dtype))
    cross = config.audio_cross_attention_dim
    sizes = ((video, config.video_dim), (audio, config.audio_dim), (video, cross), (audio, cross))
    shapes = [(tokens, heads, dim // heads // 2) for tokens, dim in sizes for _ in ("cos", "sin")]
    return tuple(
        Tensor(name, shape, dtype, axes=(None, "heads", None))
        for name, shape in zip(TABLES, shapes, strict=True)
    )


def _image_tensors(stage: Stage, size: dict[str, Any], dtype: str) -> tuple[Tensor, ...]:
    if "keyframes" not in size:
        return ()
    slots, geometry = size["keyframes"] + 1, stage.geometry
    shape = (1, stage.config.in_channels, 1, geometry.height, geometry.width)
    latents = (Tensor(f"image.{slot}.latent", shape, dtype) for slot in range(slots))
    return (*latents, Tensor("images.frame", (slots,), "int32"), Tensor("images.left", (slots,), "float32"))


def _tokens(
    stage: Stage, size: dict[str, Any], dtype: str, *, to_latents: bool = False
) -> tuple[Tensor, Tensor]:
    """The noisy tokens of both modalities; their memory becomes the result's, if that is as large."""
    config, geometry, keyframes = stage.config, stage.geometry, size.get("keyframes", 0)
    shape = (1, geometry.tokens + keyframes * geometry.cells, config.in_channels)
    return (
        Tensor("video", shape, dtype, donated=not (to_latents and keyframes)),
        Tensor("audio", (1, geometry.audio, config.audio_in_channels), dtype, donated=True),
    )


def _latents(size: dict[str, Any], config: ModelConfig, dtype: str) -> tuple[Tensor, Tensor]:
    audio = config.ltx.audio_vae
    grid = (size["frames"], size["height"], size["width"])
    cells = config.ltx.transformer.audio_in_channels // audio.z_channels
    return (
        Tensor("start.video", (1, config.ltx.vae.latent_channels, *grid), dtype),
        Tensor("start.audio", (1, audio.z_channels, size["audio"], cells), dtype),
    )


def _sigmas(size: dict[str, Any]) -> Tensor:
    return Tensor("sigmas", (size["steps"] + 1,), "float32")
