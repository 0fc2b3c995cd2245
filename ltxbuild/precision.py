"""The two precisions of a recipe and the dtypes that weights are stored in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from ltxbuild.model.params import ParamSpec

DTYPES: Mapping[str, np.dtype[Any]] = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
}


def storage_dtype(spec: ParamSpec, precision: str) -> np.dtype[Any]:
    """Dtype a parameter is stored in."""
    return DTYPES["float32"] if spec.storage == "float32" else DTYPES[precision]
