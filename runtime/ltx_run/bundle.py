"""The bundle manifest: everything a run needs to know, named by digest.

Stability: `SCHEMA` changes whenever an older reader could misread a newer manifest; readers refuse others.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ltx_run.plan import Plan

SCHEMA: Literal[1] = 1
SpecAxis = str | None


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A strict record: unknown fields are errors."""


class Blob(_Record, kw_only=True, frozen=True):
    """Content-addressed bytes: sha256 as 64 hex digits, and the size."""

    sha256: str
    size: int


class TensorSpec(_Record, kw_only=True, frozen=True):
    """Shape, dtype and sharding of one program input or output.

    `spec` names the mesh axis that splits each dimension (None: not split).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    spec: tuple[SpecAxis, ...]


class WeightInput(TensorSpec, kw_only=True, frozen=True, tag="weight", tag_field="kind"):
    """A program parameter that comes from the program's weight set.

    `layer` picks one slice of a tensor that is stored stacked.
    """

    layer: int | None = None


class TensorInput(TensorSpec, kw_only=True, frozen=True, tag="tensor", tag_field="kind"):
    """A program parameter that comes from the plan."""

    donated: bool = False


class Memory(_Record, kw_only=True, frozen=True):
    """Bytes per device, from the compiler."""

    arguments: int
    outputs: int
    temp: int
    code: int


class Fingerprint(_Record, kw_only=True, frozen=True):
    """What an executable was compiled for; the loader refuses any other machine.

    Attributes:
        platform: `cpu`, `cuda`, `tpu` or `neuron`.
        runtime: Compiler and runtime build, e.g. `jaxlib 0.10.2`.
        features: Sorted instruction-set features that the code may use (cpu), or the device kind.
        devices: Devices the program spans.
    """

    platform: str
    runtime: str
    features: tuple[str, ...]
    devices: int


class Program(_Record, kw_only=True, frozen=True):
    """One compiled program.

    Attributes:
        executable: Serialized executable.
        inputs: In parameter order.
        outputs: In result order.
        mesh: Mesh axes and sizes in order; devices are numbered row-major.
        weights: Name of the weight set, None for a program without parameters.
        key: Program key, for `explain`.
    """

    executable: Blob
    fingerprint: Fingerprint
    inputs: tuple[WeightInput | TensorInput, ...]
    outputs: tuple[TensorSpec, ...]
    mesh: tuple[tuple[str, int], ...]
    weights: str | None
    key: str
    memory: Memory
    flops: float


class WeightSet(_Record, kw_only=True, frozen=True):
    """Weights of one component as safetensors files.

    Attributes:
        shared: Tensors that every rank holds whole; None when there are none.
        ranks: One file per rank (mesh position, row-major) with that rank's shards; empty when nothing is
            sharded.
        key: Weights key, for `explain`.
    """

    shared: Blob | None
    ranks: tuple[Blob, ...]
    key: str


class Variant(_Record, kw_only=True, frozen=True):
    """One output geometry and its plan."""

    height: int
    width: int
    frames: int
    fps: float
    plan: Plan


class Bundle(_Record, kw_only=True, frozen=True):
    """A whole bundle."""

    schema: Literal[1] = SCHEMA
    name: str
    recipe: dict[str, Any]
    variants: dict[str, Variant]
    programs: dict[str, Program]
    weights: dict[str, WeightSet]
    tokenizer: Blob
    provenance: dict[str, str]


def decode(data: bytes) -> Bundle:
    """Read a manifest strictly.

    Raises:
        msgspec.ValidationError: A field is missing, unknown or of the wrong type (the path is named).
        msgspec.DecodeError: Not JSON.
    """
    return msgspec.json.decode(data, type=Bundle)


def encode(bundle: Bundle) -> bytes:
    """Canonical JSON: sorted keys, no spaces."""
    return msgspec.json.encode(bundle, order="sorted")


def blobs(bundle: Bundle) -> tuple[Blob, ...]:
    """Every blob that the manifest names, each once."""
    named = [program.executable for program in bundle.programs.values()]
    named.append(bundle.tokenizer)
    for weights in bundle.weights.values():
        named += [*weights.ranks, *([weights.shared] if weights.shared else [])]
    return tuple({blob.sha256: blob for blob in named}.values())
