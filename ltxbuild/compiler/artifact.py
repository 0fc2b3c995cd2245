"""The portable form of a lowered program: StableHLO that compilers of other versions read."""

from __future__ import annotations

import jax
import jaxlib._jax as _jax
from jax._src.interpreters import mlir
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

READERS = stablehlo.StablehloCompatibilityRequirement.WEEK_12
"""Runtimes of the last twelve weeks read it, and later ones for years (StableHLO's compatibility promise)."""


def portable_artifact(lowered: jax.stages.Lowered) -> bytes:
    """A program as a StableHLO portable artifact, with its shardings and without a trace of its sources."""
    # The text has no source locations, which would make equal programs differ.
    with mlir.make_ir_context():
        module = mlir.module_to_bytecode(ir.Module.parse(lowered.as_text()))
    version = stablehlo.get_version_from_compatibility_requirement(READERS)
    artifact: bytes = _jax.mlir.serialize_portable_artifact(module, version, False)
    return artifact
