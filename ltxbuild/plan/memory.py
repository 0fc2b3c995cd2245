"""Whether programs fit their devices: from the compiler once they are built, estimated before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ltx_run.plan import Plan, programs_of
from ltxbuild.plan.activations import temporary
from ltxbuild.plan.arguments import tensor_bytes
from ltxbuild.plan.chips import device_memory
from ltxbuild.plan.planner import BuildPlan, PlannedProgram
from ltxbuild.precision import ITEMSIZE
from ltxbuild.targets import target

Verdict = Literal["fits", "fits alone", "too large"]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a program takes on each device.

    Attributes:
        weights: Of the arguments, those that are there before it runs.
        arguments: Weights and tensors.
        temp: Scratch memory and results.
        code: The executable; 0 while it isn't built.
        estimated: Whether this is an estimate, or the compiler's own account.
    """

    weights: int
    arguments: int
    temp: int
    code: int
    estimated: bool

    @property
    def total(self) -> int:
        """All of it."""
        return self.arguments + self.temp + self.code


@dataclass(frozen=True, slots=True)
class Fit:
    """A program on its device.

    Attributes:
        footprint: What it takes.
        next: Weights and code of the largest program that may follow it, loaded while it runs.
        capacity: Bytes of the device; None where it is not known.
    """

    footprint: Footprint
    next: int
    capacity: int | None

    @property
    def together(self) -> int:
        """With the program that follows."""
        return self.footprint.total + self.next

    @property
    def verdict(self) -> Verdict | None:
        """None without a capacity."""
        if self.capacity is None:
            return None
        if self.together <= self.capacity:
            return "fits"
        return "fits alone" if self.footprint.total <= self.capacity else "too large"


def footprint(item: PlannedProgram, plan: BuildPlan) -> Footprint:
    """What a program takes, as the compiler says; estimated while it isn't built, or where it doesn't say."""
    weights = plan.weights[item.spec.weights].bytes_per_device if item.spec.weights else 0
    known = item.record.memory if item.record else None
    # A compiler that is a program of its own doesn't tell the memory that its code needs beside tensors.
    if known and target(item.placement.platform).assembler is None:
        return Footprint(weights, known.arguments, known.temp + known.outputs, known.code, estimated=False)
    precision = ITEMSIZE[plan.recipe.precision]
    temp = temporary(item.spec, plan.config, item.placement, item.forms, precision, weights)
    tensors = tensor_bytes(item.spec, plan.config, precision, item.placement.parts("heads"))
    return Footprint(weights, weights + tensors, temp, known.code if known else 0, estimated=True)


def fits(plan: BuildPlan) -> dict[str, Fit]:
    """Every program of a plan on its device, alone and with what may follow it."""
    taken = {name: footprint(item, plan) for name, item in plan.programs.items()}
    following: dict[str, int] = dict.fromkeys(taken, 0)
    for first, second in successors(variant.plan for variant in plan.blueprint.variants):
        if plan.programs[first].placement.platform == plan.programs[second].placement.platform:
            following[first] = max(following[first], taken[second].weights + taken[second].code)
    return {
        name: Fit(taken[name], following[name], device_memory(item.placement.target.get("topology")))
        for name, item in plan.programs.items()
    }


def successors(plans: Iterable[Plan]) -> set[tuple[str, str]]:
    """Programs that run one after the other in any of the plans."""
    found: set[tuple[str, str]] = set()
    for plan in plans:
        order = [name for step in plan for name in programs_of(step)]
        found |= {(first, second) for first, second in pairwise(order) if first != second}
    return found
