"""Guidance scales that the user changes: numbers that a plan has defaults for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltx_run.errors import BadScale
from ltx_run.plan import Plan, Scales

Array = NDArray[Any]
LARGEST = float(np.finfo(np.float32).max)
"""Of the numbers of f32."""


def parse(texts: Iterable[str]) -> dict[str, float]:
    """Read `NAME=VALUE` texts, such as `video.cfg=4`.

    Raises:
        BadScale: One is of another form, or its value is no number.
    """
    scales = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise BadScale(f"--guidance {text}: not of the form NAME=VALUE", hint="--guidance video.cfg=4")
        try:
            scales[name.strip()] = float(value)
        except ValueError:
            raise BadScale(f"--guidance {text}: {value!r} is not a number") from None
    return scales


def tensors(scales: Mapping[str, float], plan: Plan) -> dict[str, Array]:
    """The tensors of a plan's scales that differ from its defaults.

    Raises:
        BadScale: The plan has no such scale, its programs were compiled without it, or a value is not finite
            in f32.
    """
    steps = [step for step in plan if isinstance(step, Scales)]
    _check(scales, steps)
    changed = (step for step in steps if scales.keys() & set(step.names))
    return {step.outputs[0]: np.array(list(_values(step, scales)), np.float32) for step in changed}


def _values(step: Scales, scales: Mapping[str, float]) -> Iterator[float]:
    for name, default in zip(step.names, step.values, strict=True):
        yield scales.get(name, default)


def _check(scales: Mapping[str, float], steps: Iterable[Scales]) -> None:
    defaults = {n: v for step in steps for n, v in zip(step.names, step.values, strict=True)}
    fixed = {name for step in steps for name in step.fixed}
    listed = ", ".join(f"{name}={value:g}" for name, value in defaults.items() if name not in fixed)
    for name, value in scales.items():
        if name not in defaults:
            what = f"it has: {listed}" if listed else "its pipeline is not guided"
            raise BadScale(f"this variant has no guidance scale {name}", hint=what)
        if name in fixed:
            raise BadScale(
                f"{name} can't be changed: it is {defaults[name]:g} in the recipe, so that the programs were "
                "compiled without it",
                hint=f"give guidance.{name} another value in the recipe, and compile it again",
            )
        if not math.isfinite(value):
            raise BadScale(f"{name}={value:g} is not a finite number")
        if abs(value) > LARGEST:
            raise BadScale(f"{name}={value:g} is too large: programs take it in f32, at most {LARGEST:.3g}")
