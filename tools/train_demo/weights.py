"""Weights of the demo model: where training starts, and back into the layout of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltxbuild.model.params import ParamSpec, ParamTable, tree
from ltxbuild.synthetic.checkpoint import random_tensor
from ltxbuild.weights.sharder import arranged

Params = dict[str, Any]
Array = NDArray[np.float32]

FROZEN = re.compile(
    r"(\.up|\.down|forward|inverse|mel|registers|statistics\.mean|statistics\.std"
    r"|connectors\..*\.attn\..*bias)$"
)
"""What training leaves alone: filters (`.up`, `.down` have 12 taps), statistics, and what `text.py` wants
to be zero: registers and the biases of the connectors' attention."""


def initial(table: ParamTable, seed: int, scales: Mapping[str, float]) -> Params:
    """Where training starts: the random weights of `ltxbuild make-tiny-checkpoint`, some scaled.

    Args:
        table: The component's parameters.
        seed: Of the random weights.
        scales: Regular expression to factor: what it finds in a parameter's name is multiplied by it. The
            first that is found counts; biases and shifts start at zero.
    """
    flat = {spec.name: _scaled(spec, seed, scales) for spec in table}
    return tree(flat)


def _scaled(spec: ParamSpec, seed: int, scales: Mapping[str, float]) -> Array:
    layers = [arranged(random_tensor(key, spec.source_shape, seed), spec) for key in spec.sources]
    value = np.stack(layers) if spec.stacked else layers[0]
    if spec.name.endswith("bias"):
        return np.zeros_like(value)
    factor = next((scale for part, scale in scales.items() if re.search(part, spec.name)), 1.0)
    return (value * np.float32(factor)).astype(np.float32)


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"w": 1}}` to `{"a.w": 1}`: the inverse of `ltxbuild.model.params.tree`."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def checkpoint_tensors(table: ParamTable, params: Mapping[str, Any]) -> dict[str, Array]:
    """Trained parameters by checkpoint key, in the checkpoint's layout."""
    flat, tensors = flatten(params), {}
    for spec in table:
        value = np.asarray(flat[spec.name], np.float32)
        for index, key in enumerate(spec.sources):
            tensors[key] = _source_layout(value[index] if spec.stacked else value, spec)
    return tensors


def _source_layout(value: Array, spec: ParamSpec) -> Array:
    if spec.layout is None:
        return value
    inverse = np.argsort(spec.layout.permute)
    return value.transpose(inverse).reshape(spec.layout.source_shape)
