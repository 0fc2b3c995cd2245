"""What the plan and the compiler both know a program by."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ltxbuild.model.forms import Attention, Convolution, Layers

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
        layers: Of the layers of a component.
        attention: Of attention.
        blocks: Of the kernel `pallas`, see `model.flash.Blocks`; empty for others.
        convolution: Of 3-D convolutions.
        short: Slots of the text encoder's second way, for short prompts, see `gemma.encode`; 0 for none.
        aliasing: Rows of weights that are a multiple of so many numbers long have zeros behind them, see
            `params.padded`; 0 for none.
    """

    layers: Layers = "scan"
    attention: Attention = "plain"
    blocks: tuple[int, ...] = ()
    convolution: Convolution = "taps"
    short: int = 0
    aliasing: int = 0

    def json(self) -> dict[str, Any]:
        """For keys and jobs."""
        return asdict(self)
