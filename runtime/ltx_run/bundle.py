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


class Collective(_Record, kw_only=True, frozen=True):
    """Exchanges between devices of one kind, in one place of a program.

    Attributes:
        kind: HLO operation, e.g. `all-reduce`.
        group: Devices that take part in each.
        loops: Trip counts of the loops around them, outermost first.
        count: How many there are in one iteration of the innermost loop.
        bytes: Of the arrays that these exchange, as one device sees them.
    """

    kind: str
    group: int
    loops: tuple[int, ...]
    count: int
    bytes: int


class Temporary(_Record, kw_only=True, frozen=True):
    """The result of one operation of a program, on one device.

    Attributes:
        bytes: Its size.
        shape: Dtype and dimensions.
        opcode: HLO operation.
        origin: Where in the model's code it comes from.
    """

    bytes: int
    shape: str
    opcode: str
    origin: str


class Census(_Record, kw_only=True, frozen=True):
    """What a program exchanges and keeps, read off the compiled program."""

    collectives: tuple[Collective, ...]
    temporaries: tuple[Temporary, ...]


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


class Portable(_Record, kw_only=True, frozen=True):
    """What a program can be compiled from where its executable doesn't fit.

    Attributes:
        module: StableHLO as a portable artifact, compressed by zlib.
        flags: Compiler flags that the executable was compiled with.
    """

    module: Blob
    flags: dict[str, bool | int | float | str]


class Program(_Record, kw_only=True, frozen=True):
    """One compiled program.

    Attributes:
        executable: Serialized executable.
        inputs: In parameter order.
        outputs: In result order.
        mesh: Mesh axes and sizes in order; devices are numbered row-major.
        weights: Name of the weight set, None for a program without parameters.
        key: Program key, for `explain`.
        census: For `inspect`; None where the compiler doesn't tell.
        portable: For machines that the executable doesn't fit; None where the recipe asks for none.
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
    census: Census | None = None
    portable: Portable | None = None


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
    named = [blob for program in bundle.programs.values() for blob in codes(program)]
    named.append(bundle.tokenizer)
    for weights in bundle.weights.values():
        named += files(weights)
    return tuple({blob.sha256: blob for blob in named}.values())


def codes(program: Program) -> tuple[Blob, ...]:
    """The blobs that a program is executed from: its executable, and its portable form."""
    return (program.executable, *([program.portable.module] if program.portable else []))


def files(weights: WeightSet) -> tuple[Blob, ...]:
    """The blobs of a weight set: a file of each rank, and what all of them share."""
    return (*weights.ranks, *([weights.shared] if weights.shared else []))
