"""The demo model with one thing wrong: mistakes that a port could make, made in the checkpoint instead.

Each fault changes nothing but which number is read where, so that a video from it is what code with that
mistake would make.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltx_run.safetensors import SafetensorsFile, header_bytes

Tensors = dict[str, NDArray[Any]]
PREFIX = "model.diffusion_model."
CELL = (8, 32, 32)
"""Frames, rows and columns of a latent cell."""


def positions_in_cells(tensors: Tensors, config: dict[str, Any]) -> None:
    """Positions are counted in latent cells, where they should be in seconds and pixels."""
    transformer = config["transformer"]
    longest = transformer["positional_embedding_max_pos"]
    transformer["positional_embedding_max_pos"] = [a * b for a, b in zip(longest, CELL, strict=True)]


def scale_and_shift_swapped(tensors: Tensors, config: dict[str, Any]) -> None:
    """Row 0 (shift) and row 1 (scale) of self-attention's modulation are taken for each other."""
    for name in ("adaln_single", "audio_adaln_single"):
        for kind in ("weight", "bias"):
            key = f"{PREFIX}{name}.linear.{kind}"
            rows = tensors[key].reshape(9, -1, *tensors[key].shape[1:])
            tensors[key] = rows[[1, 0, *range(2, 9)]].reshape(tensors[key].shape)
    for key in [k for k in tensors if k.endswith(".scale_shift_table") and "transformer_blocks" in k]:
        tensors[key] = tensors[key][[1, 0, *range(2, 9)]]
    for key in [k for k in tensors if k.endswith(".audio_scale_shift_table") and "transformer_blocks" in k]:
        tensors[key] = tensors[key][[1, 0, *range(2, 9)]]


def gates_swapped(tensors: Tensors, config: dict[str, Any]) -> None:
    """What gates the video's branches gates the sound's, and the other way round."""
    gates = [2, 5, 8]
    for block in range(config["transformer"]["num_layers"]):
        key = f"{PREFIX}transformer_blocks.{block}."
        _exchange_rows(tensors, f"{key}scale_shift_table", f"{key}audio_scale_shift_table", gates)
        cross = f"{key}scale_shift_table_a2v_ca_"
        _exchange_rows(tensors, f"{cross}video", f"{cross}audio", [4])
    for kind in ("weight", "bias"):
        video, sound = (f"{PREFIX}{m}adaln_single.linear.{kind}" for m in ("", "audio_"))
        shape = tensors[video].shape
        tensors[video], tensors[sound] = (
            tensors[key].reshape(9, -1, *shape[1:]).copy() for key in (video, sound)
        )
        _exchange_rows(tensors, video, sound, gates)
        tensors[video], tensors[sound] = (tensors[key].reshape(shape) for key in (video, sound))
    for key in [k for k in tensors if k.startswith(f"{PREFIX}av_ca_a2v_gate")]:
        other = key.replace("a2v_gate", "v2a_gate")
        tensors[key], tensors[other] = tensors[other], tensors[key]


def _exchange_rows(tensors: Tensors, first: str, second: str, rows: list[int]) -> None:
    one, other = tensors[first].copy(), tensors[second].copy()
    one[rows], other[rows] = other[rows], one[rows].copy()
    tensors[first], tensors[second] = one, other


FAULTS: Mapping[str, Callable[[Tensors, dict[str, Any]], None]] = {
    "positions": positions_in_cells,
    "modulation": scale_and_shift_swapped,
    "gates": gates_swapped,
}


def write(source: Path, target: Path, fault: str) -> None:
    """Copy a single-file checkpoint with a fault."""
    file = SafetensorsFile(source)
    tensors: Tensors = {key: np.array(file.view(key)) for key in file.header.entries}
    metadata = dict(file.header.metadata)
    config = json.loads(metadata["config"])
    FAULTS[fault](tensors, config)
    metadata["config"] = json.dumps(config)
    names = sorted(tensors)
    with target.open("wb") as out:
        out.write(header_bytes([(k, tensors[k].dtype.name, tensors[k].shape) for k in names], metadata))
        for key in names:
            out.write(np.ascontiguousarray(tensors[key]).tobytes())
