"""The environment that compilers get."""

from __future__ import annotations

import os

SCRUBBED = ("XLA_", "JAX_", "LIBTPU_", "TPU_", "TF_", "LD_PRELOAD", "NEURON_")
"""Prefixes of variables that reach code generation; the recipe's flags are the only way in."""


def scrubbed() -> dict[str, str]:
    """This process's environment without what could change generated code behind the key's back."""
    return {k: v for k, v in os.environ.items() if not k.startswith(SCRUBBED)}
