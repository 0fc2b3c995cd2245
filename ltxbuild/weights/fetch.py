"""Checkpoint references of a recipe to local paths; `hf://` ones are downloaded through huggingface_hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ltxbuild.errors import CheckpointError, ToolMissing
from ltxbuild.recipe import LoraSection, Recipe
from ltxbuild.weights.checkpoint import Checkpoint, LoraFile

HUB = "hf://"
GEMMA_FILES = ("*.safetensors", "*.json")


def locate(recipe: Recipe, *, with_upsampler: bool, with_distilled: bool = False) -> Checkpoint:
    """Local paths of the recipe's checkpoint.

    Args:
        recipe: Names the files.
        with_upsampler: Whether the pipeline needs a latent upsampler.
        with_distilled: Whether it needs distilled weights beside the model's own.

    Raises:
        CheckpointError: A part is not named, or can't be downloaded.
        ToolMissing: A part is on the Hub and huggingface_hub isn't installed.
    """
    section = recipe.checkpoint
    upsampler = section.upsampler if with_upsampler else None
    return Checkpoint(
        model=_file(_named(section.model, recipe, "model", "--checkpoint FILE")),
        text_encoder=_directory(_named(section.text_encoder, recipe, "text_encoder", "--text-encoder DIR")),
        upsampler=_file(_named(upsampler, recipe, "upsampler", "--upsampler FILE"))
        if with_upsampler
        else None,
        loras=tuple(map(_lora, section.loras)),
        **(_distilled(recipe) if with_distilled else {}),
    )


def _distilled(recipe: Recipe) -> dict[str, Any]:
    section = recipe.checkpoint
    if section.distilled_lora is not None:
        return {"distilled_lora": _lora(section.distilled_lora)}
    option = "--distilled-lora FILE or --distilled FILE"
    return {"distilled": _file(_named(section.distilled, recipe, "distilled_lora", option))}


def _lora(section: LoraSection) -> LoraFile:
    return LoraFile(_file(section.file), section.strength)


def _named(reference: str | None, recipe: Recipe, field: str, option: str) -> str:
    if reference is None:
        raise CheckpointError(
            f"recipe {recipe.name} names no checkpoint.{field}",
            hint=f"pass {option}, or build without weights: --programs-only",
        )
    return reference


def _file(reference: str) -> Path:
    if not reference.startswith(HUB):
        return Path(reference)
    repo, _, name = _split(reference)
    if not name:
        raise CheckpointError(f"{reference} names a repository, not a file in it")
    hub = _hub()
    try:
        return Path(hub.hf_hub_download(repo, name))
    except Exception as error:  # huggingface_hub raises many kinds; all mean that the file can't be had
        raise CheckpointError(f"cannot download {reference}: {error}") from None


def _directory(reference: str) -> Path:
    if not reference.startswith(HUB):
        return Path(reference)
    repo, _, name = _split(reference)
    hub = _hub()
    patterns = [f"{name}/{pattern}" if name else pattern for pattern in GEMMA_FILES]
    try:
        return Path(hub.snapshot_download(repo, allow_patterns=patterns)) / name
    except Exception as error:  # see _file
        raise CheckpointError(f"cannot download {reference}: {error}") from None


def _split(reference: str) -> tuple[str, str, str]:
    """`hf://org/repo/path` to (`org/repo`, `/`, `path`)."""
    owner, _, rest = reference.removeprefix(HUB).partition("/")
    repo, slash, name = rest.partition("/")
    if not owner or not repo:
        raise CheckpointError(f"{reference} is not of the form hf://org/repo/file")
    return f"{owner}/{repo}", slash, name


def _hub() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise ToolMissing(
            "the recipe's checkpoint is on the Hugging Face Hub and huggingface_hub is not installed",
            hint="pip install 'ltxbuild[hub]', or pass local files (see ltxbuild compile --help)",
        ) from None
    return huggingface_hub
