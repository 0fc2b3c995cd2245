"""Run by test_transformer_sharded: the transformer on one device and on four, as JSON."""

import json
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltx_run.bundle import Census
from ltxbuild.compiler.census import census
from ltxbuild.compiler.lower import Lowered, Tensor, Traceable, lower
from ltxbuild.model import adaln, transformer
from ltxbuild.model.config import TransformerConfig
from ltxbuild.model.geometry import Geometry
from ltxbuild.model.params import ParamTable
from ltxbuild.model.positions import rope_tables
from ltxbuild.plan.profiles import BY_HEADS, BY_HEADS_AND_TOKENS, ONE, Layout, device_count
from ltxbuild.synthetic.shipped import shipped_config

GRID = Geometry(frames=2, height=2, width=4, audio=5, fps=24.0)
TEXT = 6
LAYERS = 3
"""XLA writes out loops of two."""


def config() -> TransformerConfig:
    """The tiny transformer with more blocks."""
    sizes = shipped_config("ltx-2.3-tiny").ltx.transformer
    return sizes.model_copy(update={"num_layers": LAYERS})


def velocity(params: Any, *tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Velocities, of video tokens of which some are hidden."""
    times = adaln.uniform(jnp.full((1,), 0.7, jnp.float32))
    ropes = rope_tables(config(), GRID, jnp.float32)
    visible = jnp.arange(GRID.tokens) < GRID.tokens - 3
    run = partial(transformer.velocity, config=config(), kind="plain", visible=visible)
    return run(params, *tokens, times, times, ropes)


def lowered(
    layout: Layout, degrees: dict[str, int], table: ParamTable, devices: Sequence[jax.Device]
) -> Lowered:
    """The program for a layout, on the first of some devices."""
    sizes = config()
    shapes = (
        (1, GRID.tokens, sizes.in_channels),
        (1, GRID.audio, sizes.audio_in_channels),
        (1, TEXT, sizes.video_dim),
        (1, TEXT, sizes.audio_dim),
    )
    tensors = tuple(Tensor(str(number), shape, "float32") for number, shape in enumerate(shapes))
    program = Traceable(velocity, tensors, ("video", "audio"))
    mesh = layout.mesh(degrees)
    some = devices[: device_count(mesh)]
    return lower(program, table, layout.rules, mesh, some, "float32", layers="scan")


def values(made: Lowered) -> list[np.ndarray]:
    """The same standard normal values for every layout, scaled like trained weights."""
    rng = np.random.default_rng(0)
    return [
        rng.standard_normal(record.shape, np.float32) / max(record.shape[-1], 1) ** 0.5
        for record in made.inputs
    ]


def run(made: Lowered, mesh: dict[str, int]) -> tuple[Sequence[np.ndarray], Census]:
    """Results, and what was exchanged for them."""
    compiled = made.module.compile()
    names = tuple(mesh) or ("device",)
    devices = np.array(jax.devices()[: device_count(mesh)])
    where = Mesh(devices.reshape(tuple(mesh.values()) or (1,)), names)
    shardings = [NamedSharding(where, PartitionSpec(*record.spec)) for record in made.inputs]
    out = compiled(*(jax.device_put(x, to) for x, to in zip(values(made), shardings, strict=True)))
    return [np.asarray(x) for x in out], census(compiled.as_text() or "")


def main() -> None:
    """Compare one device with four."""
    report = {}
    table, devices = transformer.params(config()), jax.devices()
    want, _ = run(lowered(ONE, {}, table, devices), {})
    for name, layout, degrees in (
        ("heads", BY_HEADS, {"cp": 1, "tp": 4}),
        ("grid", BY_HEADS_AND_TOKENS, {"cp": 2, "tp": 2}),
    ):
        got, found = run(lowered(layout, degrees, table, devices), layout.mesh(degrees))
        differences = [np.abs(a - b).max() / np.abs(a).max() for a, b in zip(want, got, strict=True)]
        report[name] = {"difference": float(max(differences)), "census": msgspec.to_builtins(found)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
