"""Denoising stages in a plan: schedule, noise, guidance, images, with the loop in the program or outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ltx_run import plan as steps
from ltxbuild.guidance import SCALES
from ltxbuild.model.geometry import PIXEL_STRIDE, Geometry
from ltxbuild.plan.draft import TEXT_LENGTH, Draft, Pair, pair
from ltxbuild.plan.forms import tables_outside
from ltxbuild.plan.programspec import Size

Names = tuple[str, ...]
TABLES = ("video", "audio", "cross_video", "cross_audio")
"""Rotary tables: of the tokens of a modality, and of the same in the attention between both."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A denoising stage.

    Attributes:
        name: `stage1` or `stage2`.
        size: Of its latents.
        sigmas: Its schedule.
        weights: Weight set that it runs on.
        guided: Whether the recipe's guidance acts in it.
        every: Frames of the video for each of its own.
    """

    name: str
    size: Geometry
    sigmas: tuple[float, ...]
    weights: str = "transformer"
    guided: bool = False
    every: int = 1


class _Tensors(NamedTuple):
    """Names of what a stage reads and makes; those that are no pairs may be empty."""

    sigmas: str
    start: Names
    noise: Pair
    guidance: Names
    ropes: Names
    images: Names
    latents: Pair

    @property
    def told(self) -> Names:
        """What the model is told in every step."""
        return (*pair("context"), *self.guidance, *self.ropes, *self.images)


def denoise(draft: Draft, stage: Stage, start: Pair | None = None) -> Pair:
    """Append a denoising stage, from noise or from the latents of an earlier stage.

    Returns:
        Names of the latents.
    """
    sigmas = f"sigmas.{stage.name}"
    draft.steps.append(steps.Constant(outputs=(sigmas,), values=stage.sigmas, dtype="float32"))
    noise, guidance, images = _noise(draft, stage), _guidance(draft, stage), _images(draft, stage)
    ropes, made = _ropes(draft, stage), pair(f"latent.{stage.name}")
    tensors = _Tensors(sigmas, start or (), noise, guidance, ropes, images, made)
    append = _fused if draft.recipe.loop == "fused" else _stepwise
    append(draft, stage, tensors)
    return tensors.latents


def _noise(draft: Draft, stage: Stage) -> Pair:
    """Noise for all tokens, those of keyframes last."""
    transformer = draft.config.ltx.transformer
    tokens = stage.size.tokens + (draft.variant.keyframes or 0) * stage.size.cells
    video, audio = pair(f"noise.{stage.name}")
    return (
        draft.noise(video, (1, tokens, transformer.in_channels)),
        draft.noise(audio, (1, stage.size.audio, transformer.audio_in_channels)),
    )


def _guidance(draft: Draft, stage: Stage) -> Names:
    """Negative contexts and scales, as far as the stage's passes need them."""
    guidance = draft.recipe.guidance
    if not _is_guided(draft, stage):
        return ()
    for name, values in (("video", guidance.video), ("audio", guidance.audio)):
        scales = steps.Scales(
            outputs=(f"guidance.{name}",),
            names=tuple(f"{name}.{scale}" for scale in SCALES),
            values=tuple(getattr(values, scale) for scale in SCALES),
            fixed=tuple(f"{name}.{scale}" for scale in guidance.fixed),
        )
        draft.steps.append(scales)
    negative = pair("context.negative") if guidance.negative else ()
    return (*negative, *pair("guidance"))


def _ropes(draft: Draft, stage: Stage) -> Names:
    """Rotary tables, for a target whose programs take them."""
    if not tables_outside(draft.recipe):
        return ()
    (sizes, short), frames = _sizes(draft, stage), _places(stage)[:1]
    made = tuple(f"rope.{name}.{part}.{stage.name}" for name in TABLES for part in ("cos", "sin"))
    program = draft.need("rope_tables", None, sizes, short)
    draft.run(program, frames if _slots(draft) else (), made)
    return made


def _is_guided(draft: Draft, stage: Stage) -> bool:
    """Whether a step of the stage has several passes."""
    return stage.guided and draft.recipe.guidance.passes > 1


def _images(draft: Draft, stage: Stage) -> Names:
    """Latents of the images, and where they are."""
    slots = _slots(draft)
    return (*(_latent(slot, stage) for slot in slots), *_places(stage)) if slots else ()


def _slots(draft: Draft) -> range:
    """Numbers of the variant's slots for images: one for the first frame, and the keyframes."""
    keyframes = draft.variant.keyframes
    return range(0 if keyframes is None else keyframes + 1)


def _latent(slot: int, stage: Stage) -> str:
    return f"image.{slot}.latent.{stage.name}"


def _places(stage: Stage) -> Pair:
    return f"images.frame.{stage.name}", f"images.left.{stage.name}"


def encode_images(draft: Draft, *stages: Stage) -> None:
    """Append the images of all stages, each at the stage's resolution.

    Done before the first stage, so that the encoder's weights are loaded once and gone when denoising begins.
    """
    slots = _slots(draft)
    for stage in stages if slots else ():
        for slot in slots:
            _encode(draft, stage, slot)
        place = steps.PlaceImages(outputs=_places(stage), keyframes=len(slots) - 1, every=stage.every)
        draft.steps.append(place)


def _encode(draft: Draft, stage: Stage, slot: int) -> None:
    height, width = stage.size.height * PIXEL_STRIDE, stage.size.width * PIXEL_STRIDE
    encoder = draft.need(
        "video_encoder", "video_encoder", {"height": height, "width": width}, f"{height}x{width}"
    )
    pixels, dtype = f"image.{slot}.pixels.{stage.name}", draft.recipe.precision
    load = steps.LoadImage(outputs=(pixels,), slot=slot, height=height, width=width, dtype=dtype)
    draft.steps.append(load)
    draft.run(encoder, (pixels,), (_latent(slot, stage),))


def _sizes(draft: Draft, stage: Stage) -> tuple[dict[str, Size], str]:
    """The sizes that a stage's programs are compiled for, and the same in short."""
    size, keyframes = stage.size, draft.variant.keyframes
    short = f"{size.frames}x{size.height}x{size.width}a{size.audio}f{size.fps:g}"
    sizes: dict[str, Size] = {
        "frames": size.frames,
        "height": size.height,
        "width": size.width,
        "audio": size.audio,
        "fps": size.fps,
        "length": TEXT_LENGTH,
    }
    if keyframes is not None:
        return {**sizes, "keyframes": keyframes}, f"{short}k{keyframes}"
    return sizes, short


def _model_sizes(draft: Draft, stage: Stage) -> tuple[dict[str, Size], str]:
    """The same for programs that run the model: with the passes of a step, and the steps of a pass."""
    guidance = draft.recipe.guidance
    sizes, short = _sizes(draft, stage)
    if _is_guided(draft, stage):
        short += f"g{guidance.passes}"
        sizes |= {
            "negative": int(guidance.negative),
            "stg_blocks": guidance.stg_blocks if guidance.perturbed else (),
            "isolated": int(guidance.isolated),
            "batched": int(draft.recipe.guidance_batch == "batched"),
        }
    if tables_outside(draft.recipe):
        sizes["tables"] = 1
    if _stride(draft, stage) > 1:
        sizes["stride"] = _stride(draft, stage)
    return sizes, short


def _stride(draft: Draft, stage: Stage) -> int:
    """Steps that share a prediction."""
    return draft.recipe.guidance.skip_step + 1 if stage.guided else 1


def _fused(draft: Draft, stage: Stage, tensors: _Tensors) -> None:
    (sizes, short), count = _model_sizes(draft, stage), len(stage.sigmas) - 1
    kind = "denoise_from" if tensors.start else "denoise"
    program = draft.need(kind, stage.weights, {**sizes, "steps": count}, f"{short}s{count}")
    inputs = (*tensors.start, *tensors.noise, *tensors.told, tensors.sigmas)
    draft.run(program, inputs, tensors.latents)


def _stepwise(draft: Draft, stage: Stage, tensors: _Tensors) -> None:
    video, audio = tensors.latents
    made = (f"{video}.tokens", f"{audio}.tokens")
    (sizes, short), (model_sizes, model_short) = _sizes(draft, stage), _model_sizes(draft, stage)
    state = _begin(draft, stage, tensors)
    draft.steps.append(
        steps.Loop(
            program=draft.need("denoise_step", stage.weights, model_sizes, model_short),
            sigmas=tensors.sigmas,
            inputs=(*state, *tensors.told),
            outputs=made,
            stride=_stride(draft, stage),
        )
    )
    draft.run(draft.need("unpatchify", None, sizes, short), made, tensors.latents)


def _begin(draft: Draft, stage: Stage, tensors: _Tensors) -> Pair:
    """The tokens that a loop outside the program starts from."""
    (sizes, short), count = _sizes(draft, stage), len(stage.sigmas) - 1
    (video, audio), (noise, _) = tensors.latents, tensors.noise
    noised = (f"{video}.noised", f"{audio}.noised")
    if tensors.start:
        mix = draft.need("mix_noise", None, {**sizes, "steps": count}, f"{short}s{count}")
        draft.run(mix, (*tensors.start, *tensors.noise, *tensors.images, tensors.sigmas), noised)
        return noised
    if tensors.images:
        draft.run(draft.need("mix_images", None, sizes, short), (noise, *tensors.images), noised[:1])
        return noised[0], tensors.noise[1]
    return tensors.noise
