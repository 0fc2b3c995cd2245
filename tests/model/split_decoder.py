"""Run by test_decoder_split: four tiles decoded on four devices, and one by one, as JSON."""

import json
import os
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltxbuild.compiler.census import census
from ltxbuild.compiler.lower import lower
from ltxbuild.model import video_decoder
from ltxbuild.plan.profiles import BY_TILES, ONE, Layout, device_count
from ltxbuild.plan.programspec import Forms
from ltxbuild.programs import video
from ltxbuild.synthetic.shipped import shipped_config

CONFIG = shipped_config("ltx-2.3-tiny")
TILES = 4
RANDOM = np.random.default_rng(0)
WEIGHTS = [
    RANDOM.standard_normal(spec.shape, np.float32) / max(spec.shape[-1], 1) ** 0.5
    for spec in video_decoder.params(CONFIG.ltx.vae)
]
LATENT = RANDOM.standard_normal((TILES, CONFIG.ltx.vae.latent_channels, 2, 1, 2), np.float32)


def decoder(layout: Layout, tiles: int) -> tuple[Any, str]:
    """The program for so many tiles as a function of them, and its optimised HLO."""
    mesh, size = layout.mesh({"tp": tiles}), {"frames": 2, "height": 1, "width": 2, "tiles": tiles}
    program = video.video_decoder(size, CONFIG, "float32", Forms())
    devices, table = jax.devices()[: device_count(mesh)], video_decoder.params(CONFIG.ltx.vae)
    made = lower(program, table, layout.rules, mesh, devices, "float32", layers="scan")
    compiled = made.module.compile()
    where = Mesh(np.array(devices), tuple(mesh) or ("device",))
    shardings = [NamedSharding(where, PartitionSpec(*record.spec)) for record in made.inputs]

    def decode(latent: np.ndarray) -> np.ndarray:
        placed = map(jax.device_put, (*WEIGHTS, latent), shardings)
        return np.asarray(compiled(*placed)[0])

    return decode, compiled.as_text() or ""


def main() -> None:
    """Compare."""
    together, text = decoder(BY_TILES, TILES)
    one, _ = decoder(ONE, 1)
    single = np.concatenate([one(LATENT[i : i + 1]) for i in range(TILES)])
    exchanges = [[each.kind, each.count] for each in census(text).collectives]
    apart = float(np.abs(together(LATENT) - single).max())
    print(json.dumps({"apart": apart, "range": float(np.ptp(single)), "exchanges": exchanges}))


if __name__ == "__main__":
    main()
