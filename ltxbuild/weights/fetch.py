"""Checkpoint references of a recipe to local paths; `hf://` ones are downloaded through huggingface_hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltxbuild.errors import CheckpointAbsent, CheckpointError, ToolMissing
from ltxbuild.recipe import LoraSection, Recipe
from ltxbuild.weights.checkpoint import Checkpoint, LoraFile

HUB = "hf://"
GEMMA_FILES = ("*.safetensors", "*.json")


def locate(
    recipe: Recipe, *, with_upsampler: bool, with_distilled: bool = False, download: bool = True
) -> Checkpoint:
    """Local paths of the recipe's checkpoint.

    Args:
        recipe: Names the files.
        with_upsampler: Whether the pipeline needs a latent upsampler.
        with_distilled: Whether it needs distilled weights beside the model's own.
        download: Whether what is on the Hub may be downloaded; else it must have been.

    Raises:
        CheckpointError: A part is not named, or can't be downloaded.
        CheckpointAbsent: It would have to be downloaded.
        ToolMissing: A part is on the Hub and huggingface_hub isn't installed.
    """
    return _Parts(recipe, download).all(with_upsampler=with_upsampler, with_distilled=with_distilled)


@dataclass(frozen=True)
class _Parts:
    """The parts of a recipe's checkpoint."""

    recipe: Recipe
    download: bool

    def all(self, *, with_upsampler: bool, with_distilled: bool) -> Checkpoint:
        section = self.recipe.checkpoint
        return Checkpoint(
            model=self._file(self._named(section.model, "model", "--checkpoint FILE")),
            text_encoder=self._directory(
                self._named(section.text_encoder, "text_encoder", "--text-encoder DIR")
            ),
            upsampler=self._file(self._named(section.upsampler, "upsampler", "--upsampler FILE"))
            if with_upsampler
            else None,
            loras=tuple(map(self._lora, section.loras)),
            **(self._distilled() if with_distilled else {}),
        )

    def _distilled(self) -> dict[str, Any]:
        section = self.recipe.checkpoint
        if section.distilled_lora is not None:
            return {"distilled_lora": self._lora(section.distilled_lora)}
        option = "--distilled-lora FILE or --distilled FILE"
        return {"distilled": self._file(self._named(section.distilled, "distilled_lora", option))}

    def _lora(self, section: LoraSection) -> LoraFile:
        return LoraFile(self._file(section.file), section.strength)

    def _named(self, reference: str | None, field: str, option: str) -> str:
        if reference is None:
            raise CheckpointError(
                f"recipe {self.recipe.name} names no checkpoint.{field}",
                hint=f"pass {option}, or build without weights: --programs-only",
            )
        return reference

    def _file(self, reference: str) -> Path:
        if not reference.startswith(HUB):
            return Path(reference)
        repo, _, name = _split(reference)
        if not name:
            raise CheckpointError(f"{reference} names a repository, not a file in it")
        return Path(self._from_hub(reference, lambda hub, **how: hub.hf_hub_download(repo, name, **how)))

    def _directory(self, reference: str) -> Path:
        if not reference.startswith(HUB):
            return Path(reference)
        repo, _, name = _split(reference)
        patterns = [f"{name}/{pattern}" if name else pattern for pattern in GEMMA_FILES]

        def download(hub: Any, **how: bool) -> str:
            folder: str = hub.snapshot_download(repo, allow_patterns=patterns, **how)
            return folder

        return Path(self._from_hub(reference, download)) / name

    def _from_hub(self, reference: str, get: Callable[..., str]) -> str:
        hub = _hub()
        try:
            return get(hub, local_files_only=not self.download)
        except Exception as error:  # huggingface_hub raises many kinds; all mean that it can't be had
            if not self.download:
                raise CheckpointAbsent(
                    f"{reference} is not on this machine",
                    hint="ltxbuild compile downloads it, unless --offline or --dry-run is given; or pass "
                    "--programs-only, to do without weights",
                ) from None
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
        import huggingface_hub as hub
    except ModuleNotFoundError:
        raise ToolMissing(
            "the recipe's checkpoint is on the Hugging Face Hub and huggingface_hub is not installed",
            hint="pip install 'ltxbuild[hub]', or pass local files (see ltxbuild compile --help)",
        ) from None
    hub.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its error tells of each retry too
    return hub
