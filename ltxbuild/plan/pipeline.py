"""From recipe and model configuration to programs and plans. Pure: no jax, no files.

A pipeline is written once, as a list of steps; each `run` names the program it needs, and the programs
fall out of the plan. Programs are named by what they do and their geometry, so that variants share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ltx_run import plan as steps
from ltxbuild.components import ModelConfig
from ltxbuild.errors import RecipeError
from ltxbuild.model import schedule
from ltxbuild.model.geometry import Geometry
from ltxbuild.plan.draft import Draft
from ltxbuild.plan.latent_size import first_stage, latent_size
from ltxbuild.plan.programspec import DISTILLED, ProgramSpec
from ltxbuild.plan.stages import Stage, denoise, encode_images
from ltxbuild.recipe import Pipeline, Recipe, VariantSection
from ltxbuild.upsampling import UPSAMPLINGS


@dataclass(frozen=True, slots=True)
class VariantPlan:
    """A variant with its plan."""

    name: str
    section: VariantSection
    plan: steps.Plan


@dataclass(frozen=True, slots=True)
class Blueprint:
    """All programs and plans of a recipe."""

    programs: dict[str, ProgramSpec]
    variants: tuple[VariantPlan, ...]


def _one_stage(draft: Draft) -> None:
    """All steps at full size."""
    size = latent_size(draft.variant, draft.config)
    draft.encode_text()
    stage = Stage("stage1", size, _sigmas(draft.recipe), guided=draft.recipe.guided)
    encode_images(draft, stage)
    video, audio = denoise(draft, stage)
    _finish(draft, size, video, audio)


def _two_stage(draft: Draft) -> None:
    """Most steps before the upsampler, a few after it.

    A distilled pipeline's sound is that of its last stage. A guided one's is that of the first: its second
    stage runs unguided on other weights, for the sake of the picture.
    """
    recipe, variant = draft.recipe, draft.variant
    scale = UPSAMPLINGS[recipe.upsample]
    full, small = latent_size(variant, draft.config), first_stage(variant, draft.config, scale)
    draft.encode_text()
    first = Stage("stage1", small, _sigmas(recipe), guided=recipe.guided, every=scale.time)
    weights = DISTILLED if recipe.guided else first.weights
    second = Stage("stage2", full, schedule.DISTILLED_STAGE_2, weights)
    encode_images(draft, first, second)
    video, audio = denoise(draft, first)
    upscaled = draft.upsample(video, small)
    video, last_audio = denoise(draft, second, (upscaled, audio))
    _finish(draft, full, video, audio if recipe.guided else last_audio)


def _sigmas(recipe: Recipe) -> tuple[float, ...]:
    """Schedule of the first stage."""
    return schedule.shifted(recipe.steps) if recipe.guided else schedule.DISTILLED_STAGE_1


def _finish(draft: Draft, size: Geometry, video: str, audio: str) -> None:
    """Sound first: it is small, and the video is decoded while it is written."""
    waveform = draft.decode_audio(audio, size)
    draft.write(draft.decode_video(video, size), waveform)


PIPELINES: Mapping[Pipeline, Callable[[Draft], None]] = MappingProxyType(
    {
        "distilled_one_stage": _one_stage,
        "distilled_two_stage": _two_stage,
        "guided_one_stage": _one_stage,
        "guided_two_stage": _two_stage,
    }
)


def _check_upsampler(recipe: Recipe, config: ModelConfig) -> None:
    if config.upsampler is None:
        raise RecipeError(
            f"recipe {recipe.name}: pipeline {recipe.pipeline} needs a latent upsampler",
            hint="set checkpoint.upsampler in the recipe or pass --upsampler FILE",
        )
    if config.upsampler.kind != recipe.upsample:
        raise RecipeError(
            f"recipe {recipe.name} has upsample: {recipe.upsample}, its upsampler file is a "
            f"{config.upsampler.kind} one",
            hint=f"set `upsample: {config.upsampler.kind}` in the recipe, or name another file",
        )


def _check_blocks(recipe: Recipe, config: ModelConfig) -> None:
    count = config.ltx.transformer.num_layers
    beyond = [str(block) for block in recipe.guidance.stg_blocks if block >= count]
    if recipe.guidance.perturbed and beyond:
        raise RecipeError(
            f"recipe {recipe.name}: guidance.stg_blocks names {', '.join(beyond)}; the model has blocks 0 to "
            f"{count - 1}"
        )


def blueprint(recipe: Recipe, config: ModelConfig) -> Blueprint:
    """Programs and plans of a recipe for a model.

    Raises:
        RecipeError: The pipeline needs an upsampler and the recipe names none, or one of another kind; or
            guidance names blocks that the model doesn't have.
    """
    if recipe.pipeline.endswith("two_stage"):
        _check_upsampler(recipe, config)
    if recipe.guided:
        _check_blocks(recipe, config)
    programs: dict[str, ProgramSpec] = {}
    variants = []
    for name, section in recipe.variants.items():
        draft = Draft(recipe, config, section, programs)
        PIPELINES[recipe.pipeline](draft)
        variants.append(VariantPlan(name, section, tuple(draft.steps)))
    unknown = sorted(set(recipe.programs) - {spec.kind for spec in programs.values()})
    if unknown:
        kinds = sorted({spec.kind for spec in programs.values()})
        raise RecipeError(f"programs.{unknown[0]}: no such program (allowed: {', '.join(kinds)})")
    return Blueprint(programs, tuple(variants))
