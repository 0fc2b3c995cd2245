"""Targets: what the build must know of a platform before anything is compiled. None of these imports jax.

A target is one module here and one in `ltxbuild.compiler`, which the compile process imports. To add one,
write both and name it in `TARGETS`.

Example:
    >>> target("cpu").packages
    ('jax', 'jaxlib')
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ltxbuild.targets.cpu import Cpu
from ltxbuild.targets.cuda import Cuda
from ltxbuild.targets.neuron import Neuron
from ltxbuild.targets.target import Target
from ltxbuild.targets.tpu import Tpu

TARGETS: Mapping[str, Target] = MappingProxyType(
    {each.platform: each for each in (Cpu(), Cuda(), Tpu(), Neuron())}
)


def target(platform: str) -> Target:
    """The target of a platform; recipes hold no other names than `TARGETS` has."""
    return TARGETS[platform]
