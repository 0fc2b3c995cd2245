"""What `plan` and `compile` share: from a recipe file and options to a build plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ltx_cache.home import home
from ltx_cache.store import Store
from ltxbuild.components import ModelConfig
from ltxbuild.errors import RecipeError
from ltxbuild.plan.planner import BuildPlan, plan_build
from ltxbuild.plan.sources import remembered
from ltxbuild.plan.tables import Tables
from ltxbuild.recipe import LoraSection, Recipe, load
from ltxbuild.synthetic.shipped import shipped_config
from ltxbuild.weights.checkpoint import Checkpoint, read_config
from ltxbuild.weights.fetch import locate
from ltxbuild.weights.lora import read_loras

DISTILLING = ("guided_two_stage",)
"""Pipelines whose second stage runs on distilled weights beside the model's own."""


@dataclass(frozen=True)
class CheckpointOverrides:
    """Checkpoint parts given on the command line, relative to the working directory; None if not given."""

    model: str | None
    text_encoder: str | None
    upsampler: str | None
    loras: tuple[LoraSection, ...] | None = None
    distilled_lora: LoraSection | None = None
    distilled: str | None = None


@dataclass(frozen=True)
class Planned:
    """A plan and what it was made from."""

    plan: BuildPlan
    store: Store
    checkpoint: Checkpoint | None
    files: dict[str, str]


def read_recipe(path: Path, overrides: CheckpointOverrides) -> Recipe:
    """Read a recipe and lay the command line's checkpoint over it.

    Raises:
        RecipeError: The recipe can't be used.
    """
    recipe = load(path)
    given = {name: value for name, value in vars(overrides).items() if value is not None}
    if not given:
        return recipe
    if overrides.distilled and overrides.distilled_lora:
        raise RecipeError("--distilled and --distilled-lora exclude each other")
    if overrides.distilled or overrides.distilled_lora:
        given = {"distilled": None, "distilled_lora": None, **given}
    return recipe.model_copy(update={"checkpoint": recipe.checkpoint.model_copy(update=given)})


def planned(recipe: Recipe, *, programs_only: bool, download: bool = False) -> Planned:
    """Read checkpoint headers, and look everything up.

    Args:
        recipe: The recipe.
        programs_only: Whether to leave out the checkpoint.
        download: Whether a checkpoint on the Hub may be downloaded.

    Raises:
        LtxError: The recipe, the checkpoint or the store can't be used.
    """
    store = Store(home())
    with remembered(store):
        if programs_only:
            return Planned(plan_build(recipe, _shipped(recipe), store, None), store, None, {})
        return _planned(recipe, store, download=download)


def _planned(recipe: Recipe, store: Store, *, download: bool) -> Planned:
    checkpoint = locate(
        recipe,
        with_upsampler=needs_upsampler(recipe),
        with_distilled=recipe.pipeline in DISTILLING,
        download=download,
    )
    config = read_config(checkpoint)
    loras = read_loras(checkpoint, Tables(config, store), store.file_digest)
    files = file_digests(checkpoint, store)
    return Planned(plan_build(recipe, config, store, files, loras), store, checkpoint, files)


def needs_upsampler(recipe: Recipe) -> bool:
    """Whether the recipe's pipeline has a latent upsampler."""
    return recipe.pipeline.endswith("two_stage")


def _shipped(recipe: Recipe) -> ModelConfig:
    return shipped_config(recipe.checkpoint.config, recipe.upsample)


def file_digests(checkpoint: Checkpoint, store: Store) -> dict[str, str]:
    """sha256 of a checkpoint's files by role, LoRAs apart; hashed once per file, then known by its stamp."""
    shards = sorted(checkpoint.text_encoder.glob("*.safetensors"))
    roles = {"model": checkpoint.model}
    roles |= {f"text_encoder/{path.name}": path for path in shards}
    if checkpoint.upsampler:
        roles["upsampler"] = checkpoint.upsampler
    if checkpoint.distilled:
        roles["distilled"] = checkpoint.distilled
    return {role: store.file_digest(path) for role, path in roles.items()}
