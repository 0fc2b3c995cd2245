"""LoRA files: what they change and with which tensors, or why they can't be merged.

A file of the official layout holds `diffusion_model.<module>.lora_A.weight` `[r, in]` and
`diffusion_model.<module>.lora_B.weight` `[out, r]` for each linear layer that it changes; ranks differ from
layer to layer. The official code ignores `alpha`, and so does this module. Headers are read here and no
weight; `delta.py` does the arithmetic.

Example:
    loras = read_loras(checkpoint, Tables(config, store), store.file_digest)
    loras.touching("transformer", table)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ltx_run.safetensors import Entry
from ltxbuild.errors import CheckpointError
from ltxbuild.model.params import ParamTable
from ltxbuild.plan.programspec import DISTILLED, component_of
from ltxbuild.weights.checkpoint import FLOATS, Checkpoint, LoraFile, header, listed

PREFIX = "diffusion_model."
DOWN, UP, ALPHA = ".lora_A.weight", ".lora_B.weight", ".alpha"
ADAPTABLE = ("transformer", "connectors")
"""The components below `model.diffusion_model.` in a checkpoint."""


@dataclass(frozen=True)
class Lora:
    """A LoRA file that fits the model.

    Attributes:
        path: The file.
        strength: Factor of everything it adds.
        sha256: Of the file.
        targets: Checkpoint key of a weight to the keys of its A and B in the file.
    """

    path: Path
    strength: float
    sha256: str
    targets: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Loras:
    """The LoRAs of a build in the order in which they are merged.

    Attributes:
        everywhere: Merged into every weight set that they touch.
        distilled: Merged after those into the distilled weight set alone.
    """

    everywhere: tuple[Lora, ...] = ()
    distilled: tuple[Lora, ...] = ()

    def touching(self, weight_set: str, table: ParamTable) -> tuple[Lora, ...]:
        """Those that change a weight set; a LoRA of strength 0 changes none."""
        applied = self.everywhere + (self.distilled if weight_set == DISTILLED else ())
        keys = {key for spec in table for key in spec.sources}
        return tuple(lora for lora in applied if lora.strength and not keys.isdisjoint(lora.targets))


def read_loras(
    checkpoint: Checkpoint, tables: Mapping[str, ParamTable], digest: Callable[[Path], str]
) -> Loras:
    """Read the headers of a checkpoint's LoRAs and hold them against the parameter tables.

    Args:
        checkpoint: Names the files.
        tables: Parameter tables by component.
        digest: sha256 of a file.

    Raises:
        CheckpointError: Lists what doesn't fit in any of the files: names that are no part of a LoRA, unknown
            targets, halves without the other, shapes and dtypes.
        SafetensorsError: A file is truncated or malformed.
    """
    distilled = (checkpoint.distilled_lora,) if checkpoint.distilled_lora else ()
    problems: list[str] = []
    for files, components in ((checkpoint.loras, ADAPTABLE), (distilled, (component_of(DISTILLED),))):
        shapes = linear_weights({name: tables[name] for name in components}) if files else {}
        for file in files:
            entries = header(file.path).entries
            problems += [f"{file.path.name}: {problem}" for problem in _problems(entries, shapes)]
    if problems:
        raise CheckpointError(
            listed(f"LoRAs do not fit the model ({len(problems)} problems)", problems),
            hint=f"LoRAs of this model name their tensors {PREFIX}MODULE{DOWN} and {PREFIX}MODULE{UP}",
        )
    return Loras(
        tuple(_lora(file, digest) for file in checkpoint.loras),
        tuple(_lora(file, digest) for file in distilled),
    )


def linear_weights(tables: Mapping[str, ParamTable]) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights that a LoRA may change, by checkpoint key."""
    return {
        key: spec.source_shape
        for table in tables.values()
        for spec in table
        for key in spec.sources
        if key.startswith(f"model.{PREFIX}") and key.endswith(".weight") and len(spec.source_shape) == 2
    }


def _lora(file: LoraFile, digest: Callable[[Path], str]) -> Lora:
    targets = {
        _target(module): (f"{module}{DOWN}", f"{module}{UP}")
        for module in _modules(header(file.path).entries)
    }
    return Lora(file.path, file.strength, digest(file.path), targets)


def _modules(entries: Mapping[str, Entry]) -> list[str]:
    """Modules of which there is an A or a B, in the order of the file."""
    halves = (key.removesuffix(DOWN).removesuffix(UP) for key in entries if key.endswith((DOWN, UP)))
    return list(dict.fromkeys(module for module in halves if module.startswith(PREFIX)))


def _target(module: str) -> str:
    return f"model.{module}.weight"


def _problems(entries: Mapping[str, Entry], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    modules = _modules(entries)
    known = {f"{module}{half}" for module in modules for half in (DOWN, UP, ALPHA)}
    yield from (f"unknown tensor: {key} {list(entries[key].shape)}" for key in entries if key not in known)
    if not modules:
        yield "changes no layer"
    for module in modules:
        down, up = entries.get(f"{module}{DOWN}"), entries.get(f"{module}{UP}")
        if _target(module) not in shapes:
            yield f"unknown target: {module}"
        elif down is None or up is None:
            yield f"missing: {module}{UP if up is None else DOWN}"
        else:
            yield from _misfits(module, down, up, shapes[_target(module)])


def _misfits(module: str, down: Entry, up: Entry, shape: tuple[int, ...]) -> Iterator[str]:
    """What is wrong with a pair for a weight of a shape `(out, in)`."""
    rank = down.shape[0] if down.shape else 0
    if not rank or (down.shape, up.shape) != ((rank, shape[1]), (shape[0], rank)):
        yield (
            f"shape: {module} has A {list(down.shape)} and B {list(up.shape)}, "
            f"expected [r, {shape[1]}] and [{shape[0]}, r]"
        )
    if down.dtype != up.dtype or down.dtype not in FLOATS:
        yield f"dtype: {module} has A {down.dtype} and B {up.dtype}, expected both one of {', '.join(FLOATS)}"
