"""The two precisions of a recipe and the dtypes that weights are stored in, by numpy's names."""

from __future__ import annotations

from ltxbuild.model.params import ParamSpec

ITEMSIZE = {"bfloat16": 2, "float32": 4}


def storage_dtype(spec: ParamSpec, precision: str) -> str:
    """Dtype a parameter is stored in."""
    return "float32" if spec.storage == "float32" else precision
