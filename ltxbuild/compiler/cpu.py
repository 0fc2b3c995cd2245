"""Compile process, CPU: XLA's own compiler for this machine's instruction set or a limited one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ltx_run.fingerprint import code_features, runtime_version
from ltxbuild.compiler.backend import Compiled, memory_figures
from ltxbuild.compiler.census import census
from ltxbuild.compiler.lower import Lowered


def devices(machine: Mapping[str, Any], count: int) -> Sequence[jax.Device]:
    """The host's CPU as so many devices."""
    return jax.devices()[:count]


def compile(lowered: Lowered, machine: Mapping[str, Any], flags: Mapping[str, Any]) -> Compiled:
    """Compile; the features are read off the code itself, which may use fewer than the limit allows."""
    compiled = lowered.module.compile(compiler_options=dict(flags))
    executable: Any = compiled.runtime_executable()
    code = executable.serialize()
    return Compiled(
        code=code,
        runtime=runtime_version(),
        features=code_features(code),
        memory=memory_figures(compiled, len(code)),
        census=census(compiled.as_text() or ""),
    )
