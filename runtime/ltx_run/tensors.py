"""Tensor files in and out: what a run takes instead of computing it, and what it keeps."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltx_run.errors import BadTensor
from ltx_run.flow import Signature
from ltx_run.safetensors import SafetensorsFile, header_bytes
from ltx_run.targets import named, temporary

Array = NDArray[Any]

KEPT = (
    "context.video",
    "context.audio",
    "context.negative.video",
    "context.negative.audio",
    "latent.stage1.video",
    "latent.stage1.audio",
    "latent.upscaled",
    "latent.stage2.video",
    "latent.stage2.audio",
    "frames",
    "waveform",
)
"""Tensors that are worth keeping, if a run makes them or is given them."""
IMAGE_LATENT = re.compile(r"image\.\d+\.latent\.stage\d+")
"""Latents of images are worth keeping as well, if a run makes them: empty slots have zeros."""


def worth_keeping(made: Iterable[str]) -> frozenset[str]:
    """Names of the tensors to keep in a run whose steps make those named."""
    return frozenset(KEPT).union(name for name in made if IMAGE_LATENT.fullmatch(name))


def read(path: Path, allowed: Mapping[str, Signature]) -> dict[str, Array]:
    """Tensors of a safetensors file, as views of it.

    Raises:
        BadTensor: One is not among those allowed, or has another shape or dtype.
        SafetensorsError: The file can't be read.
    """
    file = SafetensorsFile(path)
    for name, entry in file.header.entries.items():
        if name not in allowed:
            listed = "\n".join(f"    {known} {signature}" for known, signature in allowed.items())
            raise BadTensor(f"{path}: the plan has no tensor {name}", hint=f"it has:\n{listed}")
        shape, dtype = allowed[name]
        if entry.shape != shape or entry.dtype != dtype:
            found = f"{entry.dtype}{list(entry.shape)}"
            raise BadTensor(f"{path}: {name} is {found}, the plan has {allowed[name]}")
    return {name: file.view(name) for name in file.header.entries}


def parts(tensors: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, piece by piece."""
    ordered = sorted(tensors.items(), key=lambda item: (item[1].nbytes % 64 != 0, item[0]))
    yield header_bytes(((name, array.dtype.name, array.shape) for name, array in ordered), {})
    for _, array in ordered:
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def write(path: Path, tensors: Mapping[str, Array]) -> None:
    """Write a safetensors file; it has its name only when it is complete.

    Raises:
        OSError: It can't be written; the error names it.
    """
    target = path.resolve()
    hidden = temporary(target)
    try:
        with hidden.open("wb") as file:
            for part in parts(tensors):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(target)
    except OSError as error:
        raise named(error, path) from error
    finally:
        hidden.unlink(missing_ok=True)
