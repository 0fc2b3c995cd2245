"""Run by test_layouts_on_tpu: compiles the transformer for eight v6e chips in three layouts; reports JSON."""

import json
from dataclasses import replace

import msgspec
import sharded_transformer as program

from ltxbuild.compiler import tpu
from ltxbuild.compiler.census import census
from ltxbuild.model import transformer
from ltxbuild.model.params import EMBED, ParamSpec
from ltxbuild.plan.profiles import BY_HEADS, BY_HEADS_AND_TOKENS

TOPOLOGY = {"topology": "v6e:2x4"}


def turned(spec: ParamSpec) -> ParamSpec:
    """The classic mistake: kernels split along the width of tokens, over which projections sum."""
    if EMBED not in spec.axes:
        return spec
    return replace(spec, axes=tuple("mlp" if axis == EMBED else None for axis in spec.axes))


def main() -> None:
    """Compile; nothing can be run."""
    table = transformer.params(program.config())
    mistaken = tuple(turned(spec) for spec in table)
    devices = tpu.devices(TOPOLOGY, 8)
    report = {}
    for name, layout, specs, degrees in (
        ("mistake", BY_HEADS, mistaken, {"cp": 1, "tp": 4}),
        ("heads", BY_HEADS, table, {"cp": 1, "tp": 4}),
        ("grid", BY_HEADS_AND_TOKENS, table, {"cp": 2, "tp": 4}),
    ):
        compiled = program.lowered(layout, degrees, specs, devices).module.compile()
        report[name] = msgspec.to_builtins(census(compiled.as_text() or ""))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
