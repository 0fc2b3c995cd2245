"""Weights of a torch oracle, loaded through a component's parameter table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from ltxbuild.model.params import ParamSpec, ParamTable, tree

StateDict = Mapping[str, torch.Tensor]


class KeyDiff(NamedTuple):
    """How a state dict differs from what a table expects; all empty when they agree."""

    missing: list[str]
    extra: list[str]
    shapes: list[str]


AGREES = KeyDiff([], [], [])


def prefixed_state(module: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """The state dict of `module` under the names of the official file."""
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


def key_diff(table: ParamTable, state_dict: StateDict) -> KeyDiff:
    """Compare what a table reads with what a state dict holds."""
    wanted = {key: spec.source_shape for spec in table for key in spec.sources}
    found = {key: tuple(tensor.shape) for key, tensor in state_dict.items()}
    both = sorted(wanted.keys() & found.keys())
    return KeyDiff(
        sorted(wanted.keys() - found.keys()),
        sorted(found.keys() - wanted.keys()),
        [f"{k}: wanted {wanted[k]}, found {found[k]}" for k in both if wanted[k] != found[k]],
    )


def load(table: ParamTable, state_dict: StateDict, dtype: DTypeLike = jnp.float32) -> dict[str, Any]:
    """The parameter tree of `table` as jax arrays, stacked and laid out as the table says.

    Args:
        table: What to load.
        state_dict: Official keys; keys that the table does not name are left alone.
        dtype: Storage dtype of the specs with `storage="weights"`; the others are rounded to it and widened.

    Raises:
        ValueError: A key is missing or has another shape.
    """
    diff = key_diff(table, state_dict)
    if diff.missing or diff.shapes:
        raise ValueError(f"missing {diff.missing}, shapes {diff.shapes}")
    return tree({spec.name: _leaf(spec, state_dict, dtype) for spec in table})


def _leaf(spec: ParamSpec, state_dict: StateDict, dtype: DTypeLike) -> Any:
    parts = [_laid_out(spec, state_dict[key].detach().float().numpy()) for key in spec.sources]
    values = np.stack(parts) if spec.stacked else parts[0]
    if values.shape != spec.shape:
        raise ValueError(f"{spec.name}: table says {spec.shape}, its layout gives {values.shape}")
    leaf = jnp.asarray(values, dtype)
    return leaf.astype(jnp.float32) if spec.storage == "float32" else leaf


def _laid_out(spec: ParamSpec, values: NDArray[np.float32]) -> NDArray[np.float32]:
    if spec.layout is None:
        return values
    return values.reshape(spec.layout.view).transpose(spec.layout.permute)
