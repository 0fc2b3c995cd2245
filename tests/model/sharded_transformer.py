"""Run by test_transformer_sharded: compiles the transformer for two host devices and reports as JSON."""

import json
import os
import re
import sys
from functools import partial
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
sys.path.insert(0, str(Path(__file__).parents[1]))

import diffusion
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltxbuild.model import adaln, transformer
from ltxbuild.model.params import tree
from ltxbuild.model.positions import rope_tables
from ltxbuild.plan.profiles import PROFILES, partition

IN_BLOCKS = "while/body"


def _velocity(params: object, *tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    times = adaln.uniform(jnp.full((1,), 0.7, jnp.float32))
    ropes = rope_tables(diffusion.config(), diffusion.GEOMETRY, jnp.float32)
    run = partial(transformer.velocity, config=diffusion.config())
    return run(params, *tokens, times, times, ropes)


def main() -> None:
    """Compare one device with two and count the collectives inside the blocks."""
    mesh, rules = Mesh(np.array(jax.devices()), ("tp",)), PROFILES["trillium"].rules
    table = transformer.params(diffusion.config())
    shardings = tree(
        {spec.name: NamedSharding(mesh, PartitionSpec(*partition(spec, rules))) for spec in table}
    )
    params = diffusion.params()
    tokens = [jnp.asarray(x) for x in diffusion.inputs()]
    whole = jax.jit(_velocity)(params, *tokens)
    everywhere = NamedSharding(mesh, PartitionSpec())
    split_args = jax.device_put(params, shardings), *jax.device_put(tokens, everywhere)
    compiled = jax.jit(_velocity).lower(*split_args).compile()
    split = compiled(*split_args)
    inside = [line for line in compiled.as_text().splitlines() if IN_BLOCKS in line]
    gathers = r" (all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?\("
    print(
        json.dumps(
            {
                "relative_difference": max(
                    float(jnp.abs(np.asarray(a) - np.asarray(b)).max() / jnp.abs(np.asarray(a)).max())
                    for a, b in zip(whole, split, strict=True)
                ),
                "gathers_in_blocks": sum(bool(re.search(gathers, line)) for line in inside),
                "sums_in_blocks": sum(bool(re.search(r" all-reduce(-start)?\(", line)) for line in inside),
            }
        )
    )


if __name__ == "__main__":
    main()
