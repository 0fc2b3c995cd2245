"""Tiny programs, lowered for four ranks of Trainium2 as the build does it. Needs four CPU devices."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from ltx_run.distribution import DTYPES, Distribution
from ltxbuild.compiler.lower import Lowered, Traceable, lower
from ltxbuild.components import COMPONENTS
from ltxbuild.model.params import ParamTable
from ltxbuild.neuron.clean import cleaned
from ltxbuild.neuron.hlo import write
from ltxbuild.neuron.partition import partitioned
from ltxbuild.plan.profiles import PROFILES
from ltxbuild.plan.programspec import Forms, ProgramSpec
from ltxbuild.programs import traceable
from ltxbuild.synthetic.shipped import shipped_config

Array = NDArray[Any]
RANKS = 4
MESH = {"tp": RANKS}
TEXT: dict[str, Any] = {"batch": 1, "length": 64}
STAGE: dict[str, Any] = {
    "frames": 2,
    "height": 4,
    "width": 6,
    "audio": 9,
    "fps": 24.0,
    "length": 64,
    "tables": 1,
}
GUIDED: dict[str, Any] = {"negative": 1, "stg_blocks": (1,), "isolated": 1, "batched": 1}
EXAMPLES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "text_encoder": ("text_encoder", "text_encoder", TEXT),
    "denoise_step": ("denoise_step", "transformer", STAGE),
    "loop": ("denoise", "transformer", {**STAGE, "steps": 3}),
    "guided": ("denoise_step", "transformer", {**STAGE, **GUIDED}),
    "images": ("denoise_step", "transformer", {**STAGE, "keyframes": 1}),
}
"""Kind, component and sizes by name: what the recipes need, and what others may ask for."""


@dataclass(frozen=True, eq=False)
class Example:
    """A program, sharded and whole."""

    program: Traceable
    table: ParamTable
    rules: dict[str, str]
    precision: str

    @cache  # noqa: B019  lives as long as the process
    def lowered(self, ranks: int = RANKS) -> Lowered:
        """Lowered for so many devices."""
        mesh, rules = (MESH, self.rules) if ranks > 1 else ({}, {})
        devices = jax.devices()[:ranks]
        return lower(self.program, self.table, rules, mesh, devices, self.precision, layers="unroll")

    def graph(self) -> bytes:
        """What Neuron's compiler gets."""
        bytecode = io.BytesIO()
        self.lowered().module.compiler_ir("stablehlo").operation.write_bytecode(bytecode)
        return write(cleaned(partitioned(bytecode.getvalue(), RANKS)))


def example(name: str, model: str = "ltx-2.3-tiny", precision: str = "float32", **sizes: Any) -> Example:
    """A program of a shipped configuration."""
    config = shipped_config(model, "spatial_x2")
    kind, component, geometry = EXAMPLES[name]
    spec = ProgramSpec(name, kind, component, tuple((geometry | sizes).items()))
    rules = dict(PROFILES["trn2"].layout(component).rules)
    program = traceable(spec, config, precision, Forms("unroll", "plain"))
    return Example(program, COMPONENTS[component].table(config), rules, precision)


def arguments(lowered: Lowered) -> list[Array]:
    """Whole values for every input: small random numbers, a prompt that is padded on the left."""
    generator = np.random.default_rng(0)
    values = []
    for record in lowered.inputs:
        if record.dtype == "int32":
            value = generator.integers(0, 100, record.shape)
        elif record.dtype == "bool":
            value = np.broadcast_to(np.arange(record.shape[-1]) >= record.shape[-1] // 3, record.shape)
        elif record.name in ("sigma", "sigma_next"):
            value = np.full(record.shape, 0.7 if record.name == "sigma" else 0.5)
        else:
            # Weights as small as their fan-in asks, so that activations neither vanish nor explode.
            value = generator.standard_normal(record.shape) / np.sqrt(record.shape[-1])
        values.append(np.ascontiguousarray(value, DTYPES[record.dtype]))
    return values


def parts(lowered: Lowered, values: list[Array]) -> list[list[Array]]:
    """Per input what each rank gets."""
    return [
        Distribution.of(record.shape, record.dtype, record.spec, MESH).split(value)
        for record, value in zip(lowered.inputs, values, strict=True)
    ]
