"""Denoising programs as `ltxbuild compile` made them, loaded by the runtime, with random weights.

python bench/denoise_ours.py RECIPE

Prints JSON: program to seconds of a step, of several calls. The cache, LTX_HOME, has the executables.
"""

from __future__ import annotations

import argparse
import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from denoise import programs, seconds, steps
from numpy.typing import NDArray

from ltx_cache.home import home
from ltx_cache.store import Store
from ltx_run.bundle import Program, TensorInput, WeightInput
from ltx_run.devices import Executable
from ltx_run.distribution import DTYPES
from ltx_run.peers import ALONE
from ltx_run.platforms import obstacles, platform
from ltx_run.programs import Loaded
from ltxbuild.recipe import load


@cache
def block(dtype: str) -> NDArray[Any]:
    """What inputs are filled with: zeros would take less power, and so less time on some devices."""
    values = np.random.default_rng(0).standard_normal(1 << 22, np.float32) * 0.02
    return values.astype(DTYPES[dtype])


def loaded(name: str, program: Program) -> Loaded:
    """A program with its weights, ready to run.

    Raises:
        SystemExit: It needs another machine.
    """
    needed = program.fingerprint
    if found := obstacles(needed):
        raise SystemExit("\n".join(f"{name}: {each.reason}\n  {each.advice}" for each in found))
    devices = platform(needed.platform).devices(needed.devices, ALONE)
    code = Store(home()).open(program.executable).read_bytes()
    executable: Executable = devices.load(name, program, code)
    records = enumerate(program.inputs)
    weights = {i: executable.argument(i, _filled(r)) for i, r in records if isinstance(r, WeightInput)}
    return Loaded(program, executable, weights)


def measured(name: str, program: Program) -> list[float]:
    """Seconds of several calls; the device has room for one program's weights at a time."""
    ready = loaded(name, program)
    values = [_filled(record) for record in program.inputs if isinstance(record, TensorInput)]
    return seconds(partial(ready.call, values, [False] * len(values)))


def _filled(record: WeightInput | TensorInput) -> NDArray[Any]:
    return np.resize(block(record.dtype), record.shape)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", type=Path)
    figures = {}
    for name, item in programs(load(parser.parse_args().recipe), home()).items():
        if item.record is None:
            raise SystemExit(f"{name} is not compiled")
        figures[name] = [each / steps(item) for each in measured(name, item.record)]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
