"""LoRAs and plans that the tests of merging, weight sets and options share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from test_keys import BASE, FILES

from ltx_cache.store import Store
from ltx_run.safetensors import header_bytes
from ltxbuild.components import COMPONENTS
from ltxbuild.plan.planner import BuildPlan, plan_build
from ltxbuild.recipe import Recipe
from ltxbuild.synthetic.shipped import shipped_config
from ltxbuild.weights.lora import Lora, Loras
from ltxbuild.weights.sharder import ShardedWeights, shard

CONFIG = shipped_config("ltx-2.3-tiny")
TABLES = {name: COMPONENTS[name].table(CONFIG) for name in ("transformer", "connectors")}
RULES, MESH = {"heads": "tp", "mlp": "tp"}, {"tp": 4}
QUERY = "diffusion_model.transformer_blocks.0.attn1.to_q"
CONNECTOR = "diffusion_model.video_embeddings_connector.transformer_1d_blocks.0.attn1.to_q"
Tensors = dict[str, np.ndarray]


def write(path: Path, tensors: Tensors) -> Path:
    """Write a safetensors file."""
    header = header_bytes([(k, t.dtype.name, t.shape) for k, t in tensors.items()], {})
    path.write_bytes(b"".join([header, *(t.tobytes() for t in tensors.values())]))
    return path


def pair(module: str, out_features: int = 64, in_features: int = 64, rank: int = 2) -> Tensors:
    """A random A and B for one module."""
    random = np.random.default_rng(0)
    return {
        f"{module}.lora_A.weight": random.standard_normal((rank, in_features)).astype("bfloat16"),
        f"{module}.lora_B.weight": random.standard_normal((out_features, rank)).astype("bfloat16"),
    }


def transformer(store: Store, files: dict[str, Path], loras: tuple[Lora, ...], mesh: bool) -> ShardedWeights:
    """The tiny transformer's shard files."""
    split = (RULES, MESH) if mesh else ({}, {})
    return shard(TABLES["transformer"], files, *split, "bfloat16", store, lambda amount: None, loras)


def plan(tmp_path: Path, loras: Loras | None = None, files: dict[str, str] = FILES) -> BuildPlan:
    """Plan the two-stage recipe of the key laws."""
    return plan_build(Recipe.model_validate(BASE), CONFIG, Store(tmp_path / "home"), files, loras)


def lora(*modules: str, strength: float = 1.0, sha256: str = "e" * 64) -> Lora:
    """A LoRA on some modules."""
    return Lora(Path("x"), strength, sha256, {f"model.{module}.weight": ("", "") for module in modules})


Q, C = lora(QUERY), lora(CONNECTOR)
