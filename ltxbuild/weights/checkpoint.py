"""Official checkpoints: finding the files, reading their configuration, refusing what doesn't fit.

Everything here reads headers and small JSON files only; no weight is touched before all of it has passed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ltx_run.safetensors import Entry, Header, read_header
from ltxbuild.components import ModelConfig
from ltxbuild.errors import CheckpointError
from ltxbuild.model.config import GemmaConfig, LtxConfig, UpsamplerConfig
from ltxbuild.model.params import ParamTable
from ltxbuild.model.video_stages import decoder_stages, encoder_stages
from ltxbuild.plan.programspec import DISTILLED

SUPPORTED_VERSION = (2, 3)
UPSAMPLER = "LatentUpsampler"
PROJECTION = "text_embedding_projection.video_aggregate_embed.weight"
UNUSED_GEMMA = ("vision_tower.", "multi_modal_projector.")
"""Parts of a Gemma directory that no program reads (image input)."""
FLOATS = ("bfloat16", "float16", "float32")
MAX_LISTED = 12
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class LoraFile:
    """A LoRA and how strongly it is merged."""

    path: Path
    strength: float = 1.0


@dataclass(frozen=True)
class Checkpoint:
    """The files of one model.

    Attributes:
        model: Single-file checkpoint.
        text_encoder: Gemma directory.
        upsampler: Latent upsampler file, if the pipeline needs one.
        loras: Merged into the model's weights, in order.
        distilled_lora: Merged after those into the weights of a guided pipeline's second stage.
        distilled: Single-file checkpoint that those weights come from, in place of a LoRA.
    """

    model: Path
    text_encoder: Path
    upsampler: Path | None = None
    loras: tuple[LoraFile, ...] = ()
    distilled_lora: LoraFile | None = None
    distilled: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All safetensors files."""
        shards = sorted(self.text_encoder.glob("*.safetensors"))
        return (self.model, *shards, *([self.upsampler] if self.upsampler else []))

    def source_of(self, weight_set: str) -> Checkpoint:
        """The checkpoint that a weight set's tensors come from, before LoRAs."""
        if weight_set != DISTILLED or self.distilled is None:
            return self
        return replace(self, model=self.distilled)

    @property
    def tokenizer(self) -> Path:
        """The tokenizer definition."""
        return self.text_encoder / "tokenizer.json"


def read_config(checkpoint: Checkpoint) -> ModelConfig:
    """Configuration of all three parts, checked for agreement.

    Raises:
        CheckpointError: A file is missing or damaged, of another generation, or the parts don't fit.
    """
    ltx = _read_ltx(checkpoint.model)
    gemma = _read_gemma(checkpoint)
    _check_features(checkpoint, gemma)
    if checkpoint.distilled and _read_ltx(checkpoint.distilled).transformer != ltx.transformer:
        raise CheckpointError(
            f"{checkpoint.distilled} has another transformer configuration than {checkpoint.model}"
        )
    upsampler = None if checkpoint.upsampler is None else _read_upsampler(checkpoint.upsampler)
    return ModelConfig(ltx, gemma, upsampler)


def _check_features(checkpoint: Checkpoint, gemma: GemmaConfig) -> None:
    """Refuse a Gemma of another size: all its states, side by side, are what the text projections take."""
    states = gemma.num_hidden_layers + 1
    weight = header(checkpoint.model).entries.get(PROJECTION)
    if weight is None or len(weight.shape) != 2 or weight.shape[1] == gemma.hidden_size * states:
        return  # what is missing or of another form is `validate`'s affair
    raise CheckpointError(
        f"{checkpoint.text_encoder} is a Gemma of width {gemma.hidden_size} with {states} states, "
        f"{gemma.hidden_size * states} features; the checkpoint was trained with {weight.shape[1]} "
        "(188160 is gemma-3-12b: width 3840, 49 states)",
        hint="use the Gemma directory that the checkpoint's model card names",
    )


def _read_ltx(path: Path) -> LtxConfig:
    metadata = header(path).metadata
    version = metadata.get("model_version")
    if version is None or "config" not in metadata:
        missing = [key for key in ("model_version", "config") if key not in metadata]
        raise CheckpointError(
            f"{path} has no {' and no '.join(missing)} in its metadata: "
            "not an official single-file LTX-2.3 checkpoint"
        )
    version = str(_json_or_text(version))
    if _version(version) != SUPPORTED_VERSION:
        raise CheckpointError(f"{path} is LTX model_version {version}; this builder computes LTX-2.3 only")
    config = _validated(LtxConfig, _json_or_text(metadata["config"]), path)
    try:
        for stages in (decoder_stages, encoder_stages):
            stages(config.vae)
    except ValueError as error:
        raise CheckpointError(f"{path}: the configuration is not LTX-2.3's:\n  vae.{error}") from None
    return config


def _version(text: str) -> tuple[int, ...]:
    """Leading two integers of a dotted version."""
    numbers = []
    for part in text.split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits) if digits else -1)
    return tuple(numbers)


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _read_gemma(checkpoint: Checkpoint) -> GemmaConfig:
    directory = checkpoint.text_encoder
    path = directory / "config.json"
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory; the text encoder is a Gemma-3 directory")
    if not path.is_file() or not checkpoint.tokenizer.is_file():
        absent = [p.name for p in (path, checkpoint.tokenizer) if not p.is_file()]
        raise CheckpointError(f"{directory} has no {' and no '.join(absent)}")
    if len(checkpoint.files) == 1 + (checkpoint.upsampler is not None):
        raise CheckpointError(f"{directory} has no *.safetensors file")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind not in ("gemma3", "gemma3_text"):
        raise CheckpointError(f"{path} has model_type {kind!r}; LTX-2.3 takes 'gemma3'")
    return _validated(GemmaConfig, raw.get("text_config", raw), path)


def _read_upsampler(path: Path) -> UpsamplerConfig:
    config = _json_or_text(header(path).metadata.get("config", "null"))
    # The official loader reads no class; other files that have a configuration have their parts in sections.
    if not isinstance(config, dict) or config.get("_class_name", UPSAMPLER) != UPSAMPLER or "vae" in config:
        raise CheckpointError(f"{path} is not a latent upsampler (no LatentUpsampler config in its metadata)")
    return _validated(UpsamplerConfig, config, path)


def _validated(model: type[Model], data: Any, path: Path) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"])
            told = problem["type"] in ("missing", "value_error")
            shown = "" if told else f" (found {problem['input']!r})"
            lines.append(f"{where}: {problem['msg']}{shown}"[:300])
        raise CheckpointError(
            f"{path}: the configuration is not LTX-2.3's:\n  " + "\n  ".join(lines[:MAX_LISTED])
        ) from None


def header(path: Path) -> Header:
    """The header of one of a checkpoint's files.

    Raises:
        CheckpointError: There is no such file.
        SafetensorsError: It is truncated or malformed.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist", hint="check the paths under `checkpoint:` in the recipe"
        )
    return read_header(path)


def validate(checkpoint: Checkpoint, tables: Mapping[str, ParamTable]) -> dict[str, Path]:
    """Hold every tensor of the files against the parameter tables.

    Returns:
        Checkpoint key to the file that holds it.

    Raises:
        CheckpointError: Lists missing, extra and wrongly shaped tensors.
    """
    found: dict[str, tuple[Path, Entry]] = {}
    problems = []
    for path in checkpoint.files:
        for key, entry in header(path).entries.items():
            if key in found:
                problems.append(f"twice: {key} (in {found[key][0].name} and {path.name})")
            found[key] = (path, entry)
    problems += _compare(tables, {key: entry for key, (_, entry) in found.items()})
    if problems:
        raise CheckpointError(
            listed(
                f"checkpoint {checkpoint.model.name} does not fit its configuration "
                f"({len(problems)} problems)",
                problems,
            )
        )
    return {key: path for key, (path, _) in found.items()}


def listed(message: str, problems: Sequence[str]) -> str:
    """A message with the first problems below it, and how many more there are."""
    rest = len(problems) - MAX_LISTED
    more = [f"and {rest} more"] if rest > 0 else []
    return "\n  ".join([f"{message}:", *problems[:MAX_LISTED], *more])


def _compare(tables: Mapping[str, ParamTable], found: Mapping[str, Entry]) -> list[str]:
    expected = {key: spec.source_shape for table in tables.values() for spec in table for key in spec.sources}
    problems = [f"missing: {key} {list(shape)}" for key, shape in expected.items() if key not in found]
    for key, entry in found.items():
        if key not in expected:
            if not key.startswith(UNUSED_GEMMA):
                problems.append(f"extra: {key} {list(entry.shape)}")
        elif entry.shape != expected[key]:
            problems.append(f"shape: {key} is {list(entry.shape)}, expected {list(expected[key])}")
        elif entry.dtype not in FLOATS:
            problems.append(f"dtype: {key} is {entry.dtype}, expected one of {', '.join(FLOATS)}")
    return problems
