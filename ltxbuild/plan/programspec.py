"""What the plan and the compiler both know a program by."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Size = int | float | tuple[int, ...]
Geometry = tuple[tuple[str, Size], ...]

DISTILLED = "transformer.distilled"
"""The transformer's weights in the second stage of guided pipelines."""


def component_of(weight_set: str) -> str:
    """The component whose parameter table a weight set has: its name up to the first dot.

    >>> component_of("transformer.distilled"), component_of("vocoder")
    ('transformer', 'vocoder')
    """
    return weight_set.partition(".")[0]


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """One program to build.

    Attributes:
        id: Name in the bundle: the kind and, where it depends on one, the geometry.
        kind: What the program computes, see `programs.MODULES`.
        weights: Weight set it reads, None for a program without parameters. Programs that differ in nothing
            else have one executable.
        geometry: Named sizes, and what else the program is compiled for.
    """

    id: str
    kind: str
    weights: str | None
    geometry: Geometry

    @property
    def component(self) -> str | None:
        """The component that the program is of."""
        return component_of(self.weights) if self.weights else None


@dataclass(frozen=True, slots=True)
class Forms:
    """How a program is written.

    Attributes:
        layers: `scan` over stacked weights, or `unroll`: written out, one input per layer and weight.
        attention: See `model.layers.attention`; `pallas` is the TPU kernel.
        blocks: Of that kernel, see `model.flash.Blocks`; empty for others.
        convolution: See `model.conv.convolve3d`.
    """

    layers: Literal["scan", "unroll"] = "scan"
    attention: Literal["plain", "blocked", "pallas", "cudnn"] = "plain"
    blocks: tuple[int, ...] = ()
    convolution: Literal["taps", "direct", "products"] = "taps"

    def json(self) -> dict[str, Any]:
        """For keys and jobs."""
        return asdict(self)
