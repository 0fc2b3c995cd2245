"""Programs, weights and NEFFs for tests of the Neuron loader, and the libnrt they run on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltx_run.bundle import Blob, Fingerprint, Memory, Program, TensorInput, TensorSpec, WeightInput
from ltx_run.neuron import nrt
from ltx_run.neuron.signature import Signature, part_bytes
from ltx_run.safetensors import header_bytes
from ltx_run.weights import Weights

RANKS = 4
NONE = (None, None)
WEIGHTS = {"split": ((8, 6), ("tp", None)), "whole": ((3, 5), NONE), "stack": ((8, 2), ("tp", None))}
TENSORS = {"video": (2, 3), "context": (4, 4), "tokens": (1, 7)}


def program() -> Program:
    """Two weights, a layer of a stacked one, two changing f32 inputs and one of int32; two results."""
    weights = [
        WeightInput(name=name, shape=shape, dtype="float32", spec=spec, layer=1 if name == "stack" else None)
        for name, (shape, spec) in WEIGHTS.items()
    ]
    tensors = [
        TensorInput(name=name, shape=shape, dtype="int32" if name == "tokens" else "float32", spec=NONE)
        for name, shape in TENSORS.items()
    ]
    return Program(
        executable=Blob(sha256="0" * 64, size=1),
        fingerprint=Fingerprint(
            platform="neuron", runtime="neuronx-cc 2.24", features=("trn2", "lnc2"), devices=RANKS
        ),
        inputs=(*weights, *tensors),
        outputs=(
            TensorSpec(name="whole", shape=(2, 3), dtype="float32", spec=NONE),
            TensorSpec(name="split", shape=(8, 2), dtype="float32", spec=("tp", None)),
        ),
        mesh=(("tp", RANKS),),
        weights="transformer",
        key="",
        memory=Memory(arguments=1, outputs=1, temp=1, code=1),
        flops=1.0,
    )


def tensors_of(signature: Signature) -> list[tuple[str, int, int, int]]:
    """What a NEFF of that program says of its tensors: name, usage, bytes, dtype."""
    return [
        (f"{word}{index}", usage, part_bytes(record), nrt.DTYPES[record.dtype.name][0])
        for usage, word, records in ((0, "input", signature.inputs), (1, "output", signature.outputs))
        for index, record in enumerate(records)
    ]


def values(seed: int) -> dict[int, np.ndarray]:
    """The changing inputs by parameter number; each sum is exact in f32."""
    random = np.random.default_rng(seed)
    shapes = enumerate(TENSORS.items(), len(WEIGHTS))
    return {
        index: random.integers(-8, 8, shape).astype(np.int32 if name == "tokens" else np.float32)
        for index, (name, shape) in shapes
    }


class Files:
    """Weight files: `whole` is shared, the others have a file per rank."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        random = np.random.default_rng(0)
        self.ranks = [
            {"split": _whole(random, (2, 6)), "stack": _whole(random, (3, 2, 2))} for _ in range(RANKS)
        ]
        self.shared = {"whole": _whole(random, (3, 5))}
        for rank, tensors in enumerate(self.ranks):
            _write(folder / f"{rank}.safetensors", tensors)
        _write(folder / "shared.safetensors", self.shared)
        paths = {rank: folder / f"{rank}.safetensors" for rank in range(RANKS)}
        self.opened = Weights("transformer", folder / "shared.safetensors", paths)

    def sums(self, changing: Mapping[int, np.ndarray]) -> list[float]:
        """What the mock computes: per rank the sum of all f32 inputs, plus the rank."""
        values = sum(float(value.sum()) for value in changing.values() if value.dtype == np.float32)
        return [
            rank + values + float(self.shared["whole"].sum() + own["split"].sum() + own["stack"][1].sum())
            for rank, own in enumerate(self.ranks)
        ]


def _whole(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.integers(-8, 8, shape).astype(np.float32)


def _write(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    header = header_bytes(((name, array.dtype.name, array.shape) for name, array in tensors.items()), {})
    path.write_bytes(header + b"".join(array.tobytes() for array in tensors.values()))


@dataclass
class Mock:
    """The libnrt of a test, found by way of LD_LIBRARY_PATH, and what it recorded."""

    folder: Path
    patch: pytest.MonkeyPatch

    def set(self, **options: Any) -> None:
        """Options of the library, see its source."""
        for name, value in options.items():
            self.patch.setenv(f"MOCK_NRT_{name.upper()}", str(value))

    def calls(self) -> list[str]:
        """A line per call."""
        log = self.folder / "calls"
        return log.read_text().splitlines() if log.exists() else []

    def names(self) -> list[str]:
        """The functions that were called."""
        return [line.split()[0] for line in self.calls() if line.startswith("nrt_")]

    def counts(self) -> Counter[str]:
        """How often each function was called."""
        return Counter(self.names())

    def left(self) -> str:
        """What was not freed when the runtime was closed."""
        return next(line for line in self.calls() if line.startswith("left"))
