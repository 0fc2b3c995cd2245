"""What the plan and the compiler both know a program by."""

from __future__ import annotations

from dataclasses import dataclass

Geometry = tuple[tuple[str, int | float], ...]


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """One program to build.

    Attributes:
        id: Name in the bundle: the kind and, where it depends on one, the geometry.
        kind: What the program computes, see `programs.MODULES`.
        component: Weight set it reads, None for a program without parameters.
        geometry: Named sizes.
    """

    id: str
    kind: str
    component: str | None
    geometry: Geometry
