"""Sharding profiles: how each component is spread over devices. To add one, touch this file only.

A layout names the mesh axes it uses and, for each logical axis of weights or activations, the mesh axis that
splits it; what it doesn't name is whole on every device. The logical axes are

| axis | of |
|---|---|
| `heads` | attention: projections, norms and everything between them |
| `mlp` | the inner width of feed-forward layers and of the feature projection |
| `embed` | the width of tokens, in the transformer's weights: it saves memory, see `model.axes.gather` |
| `tokens` | the transformer's video tokens |
| `tiles` | the tiles of a video that are decoded together |

The mesh axes are those of the recipe: `tp` has `target.tensor_parallel` devices, `cp`
`target.context_parallel`. A layout without `cp` takes the devices of both along `tp`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ltxbuild.errors import RecipeError
from ltxbuild.model.params import ParamSpec, ParamTable

DEGREES = MappingProxyType({"cp": "context_parallel", "tp": "tensor_parallel"})
"""Field of a recipe's target that gives the size of each mesh axis, slowest axis first."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a component is spread over devices.

    Attributes:
        mesh_axes: Mesh axes in order, slowest first; devices are numbered row-major.
        rules: Logical axis to mesh axis.
    """

    mesh_axes: tuple[str, ...]
    rules: Mapping[str, str]

    def mesh(self, degrees: Mapping[str, int]) -> dict[str, int]:
        """Sizes of the mesh axes; devices along axes that the layout lacks go to its last one.

        >>> BY_HEADS.mesh({"cp": 2, "tp": 4})
        {'tp': 8}
        """
        sizes = {axis: degrees[axis] for axis in self.mesh_axes}
        if sizes:
            sizes[self.mesh_axes[-1]] *= math.prod(degrees.values()) // math.prod(sizes.values())
        return sizes


ONE = Layout((), MappingProxyType({}))
"""One device holds the component and runs it: nothing is exchanged."""
BY_HEADS = Layout(("tp",), MappingProxyType({"heads": "tp", "mlp": "tp"}))
"""Activations whole on every device, summed up after each attention and each feed-forward layer."""
BY_HEADS_AND_TOKENS = Layout(
    ("cp", "tp"), MappingProxyType({"heads": "tp", "mlp": "tp", "embed": "cp", "tokens": "cp"})
)
"""Fewer devices add up fewer tokens each; in exchange keys, values and each layer's weights are gathered."""
BY_TILES = Layout(("tp",), MappingProxyType({"tiles": "tp"}))
"""Each device holds all weights and decodes a tile of its own; frames alone are exchanged."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One sharding profile.

    Attributes:
        layouts: By component; those that it doesn't name run on one device.
        why: One sentence for people who choose.
        prompts: Text programs take the prompt and the negative prompt as one batch, or run once for each.
    """

    layouts: Mapping[str, Layout]
    why: str
    prompts: Literal["batched", "sequential"] = "batched"

    @property
    def mesh_axes(self) -> frozenset[str]:
        """Mesh axes that any of the layouts uses."""
        return frozenset(axis for layout in self.layouts.values() for axis in layout.mesh_axes)

    def layout(self, component: str) -> Layout:
        """The layout of a component."""
        return self.layouts.get(component, ONE)


_TEXT = MappingProxyType({"text_encoder": BY_HEADS, "connectors": BY_HEADS})
"""1024 tokens, once per video: sums of so few cost less than gathering weights would."""
_BY_HEADS = MappingProxyType({**_TEXT, "transformer": BY_HEADS})
_DECODED = MappingProxyType({"video_decoder": BY_TILES})

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "single": Profile(MappingProxyType({}), "one device holds everything"),
        "trn2": Profile(
            _BY_HEADS,
            "Trainium2: heads and feed-forward split, the rest whole on each core",
            prompts="sequential",  # its compiler takes long, and one program then serves all pipelines
        ),
        "hopper": Profile(
            MappingProxyType({**_BY_HEADS, **_DECODED}),
            "H100/H200: heads and feed-forward split over NVLink",
        ),
        "ironwood": Profile(
            MappingProxyType({**_BY_HEADS, **_DECODED}),
            "TPU v7: one axis by heads; 96 GB a device leave the rest whole",
        ),
        "trillium": Profile(
            MappingProxyType({**_TEXT, **_DECODED, "transformer": BY_HEADS_AND_TOKENS}),
            "TPU v6e: a grid of video tokens by heads, the transformer's weights split over both",
        ),
    }
)


def check_degrees(profile: str, degrees: Mapping[str, int]) -> None:
    """Refuse degrees along axes that a profile doesn't have.

    Raises:
        RecipeError: Names the field, and the profiles that have the axis.
    """
    axes = PROFILES[profile].mesh_axes
    for axis, degree in degrees.items():
        if degree > 1 and axis not in axes:
            others = ", ".join(name for name, other in PROFILES.items() if axis in other.mesh_axes)
            what = f"splits nothing along {axis}" if axes else "uses one device"
            raise RecipeError(
                f"target.{DEGREES[axis]} is {degree}, but profile '{profile}' {what}",
                hint=f"choose one of the profiles {others}",
            )


def partition(spec: ParamSpec, rules: Mapping[str, str]) -> tuple[str | None, ...]:
    """Mesh axis per dimension of a parameter."""
    return tuple(rules.get(axis) if axis is not None else None for axis in spec.axes)


def check_divides(
    table: ParamTable, extents: Mapping[str, int], rules: Mapping[str, str], mesh: Mapping[str, int]
) -> None:
    """Refuse a layout that would split an axis unevenly.

    Args:
        table: Parameters.
        extents: Sizes of logical axes that no parameter shows.
        rules: Logical axis to mesh axis.
        mesh: Mesh axes and sizes.

    Raises:
        RecipeError: Names the first axis that doesn't divide, and the degrees that divide all.
    """
    sizes = [(f"the program has {size} {axis}", rules.get(axis), size) for axis, size in extents.items()]
    sizes += [
        (f"{spec.name} has {size} {name}", axis, size)
        for spec in table
        for size, name, axis in zip(spec.shape, spec.axes, partition(spec, rules), strict=True)
    ]
    for what, axis, size in sizes:
        if axis is not None and size % mesh[axis]:
            common = math.gcd(*(other for _, along, other in sizes if along == axis))
            degrees = [str(d) for d in range(1, common + 1) if common % d == 0]
            raise RecipeError(
                f"{what} along mesh axis '{axis}', which {mesh[axis]} devices can't share evenly",
                hint=f"use target.{DEGREES[axis]} of {', '.join(degrees)}",
            )


def device_count(mesh: Mapping[str, int]) -> int:
    """Devices in a mesh; an empty mesh is one device."""
    return math.prod(mesh.values())
