"""LoRAs: what fits is merged into what it touches; what doesn't is refused with a list."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loras import CONNECTOR, QUERY, TABLES, Tensors, pair, transformer, write

from ltx_cache.store import Store
from ltx_run.safetensors import SafetensorsError, SafetensorsFile, header_bytes, read_header
from ltxbuild.components import COMPONENTS
from ltxbuild.errors import CheckpointError
from ltxbuild.synthetic.checkpoint import write_checkpoint, write_lora
from ltxbuild.synthetic.shipped import shipped_config
from ltxbuild.weights.checkpoint import Checkpoint, LoraFile
from ltxbuild.weights.delta import delta, merged
from ltxbuild.weights.lora import Loras, linear_weights, read_loras


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A tiny checkpoint and its LoRA, written once."""
    folder = tmp_path_factory.mktemp("checkpoint")
    files = write_checkpoint(folder)
    return Checkpoint(*files, loras=(LoraFile(write_lora(folder)),))


def read(checkpoint: Checkpoint, *files: Path | LoraFile, **others: Any) -> Loras:
    """Read LoRAs for a checkpoint; the digest of a file is its name."""
    loras = tuple(file if isinstance(file, LoraFile) else LoraFile(file) for file in files)
    return read_loras(replace(checkpoint, loras=loras, **others), TABLES, lambda path: path.name)


def test_the_tiny_lora_has_the_official_layout(tiny: Checkpoint) -> None:
    """Every linear layer of the transformer and nothing else, of several ranks; 1660 at full size."""
    (lora,) = read_loras(tiny, TABLES, lambda path: path.name).everywhere
    weights = linear_weights({"transformer": TABLES["transformer"]})
    assert lora.targets.keys() == weights.keys()
    down, up = lora.targets[f"model.{QUERY}.weight"]
    assert (down, up) == (f"{QUERY}.lora_A.weight", f"{QUERY}.lora_B.weight")
    entries = read_header(lora.path).entries
    assert len({entries[down].shape[0] for down, _ in lora.targets.values()}) > 1
    full = COMPONENTS["transformer"].table(shipped_config("ltx-2.3-22b"))
    assert len(linear_weights({"transformer": full})) == 1660


def test_every_misfit_is_listed_in_one_message(tiny: Checkpoint, tmp_path: Path) -> None:
    """Two files with six mistakes give one message with six lines."""
    first = {
        **pair(f"{QUERY}x"),
        **pair(QUERY.replace("to_q", "to_k"), in_features=32),
        "lora_unet_blocks_0.lora_up.weight": np.zeros((2, 2), np.float32),
    }
    second = {**pair(QUERY), **pair(CONNECTOR), **pair(QUERY.replace("to_q", "to_v"))}
    del second[f"{QUERY}.lora_B.weight"]
    del second[f"{CONNECTOR}.lora_A.weight"]
    value = QUERY.replace("to_q", "to_v")
    second[f"{value}.lora_A.weight"] = second[f"{value}.lora_A.weight"].astype(np.float32)
    with pytest.raises(CheckpointError) as caught:
        read(tiny, write(tmp_path / "one.safetensors", first), write(tmp_path / "two.safetensors", second))
    assert caught.value.message.splitlines()[1:] == [
        "  one.safetensors: unknown tensor: lora_unet_blocks_0.lora_up.weight [2, 2]",
        f"  one.safetensors: unknown target: {QUERY}x",
        f"  one.safetensors: shape: {QUERY.replace('to_q', 'to_k')} has A [2, 32] and B [64, 2], "
        "expected [r, 64] and [64, r]",
        f"  two.safetensors: missing: {QUERY}.lora_B.weight",
        f"  two.safetensors: missing: {CONNECTOR}.lora_A.weight",
        f"  two.safetensors: dtype: {value} has A float32 and B bfloat16, "
        "expected both one of bfloat16, float16, float32",
    ]
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "changes no layer"),
        (pair(QUERY, rank=0), "shape:"),
        ({f"{QUERY}.lora_A.weight": np.zeros(64), f"{QUERY}.lora_B.weight": np.zeros((64, 1))}, "shape:"),
        (pair("diffusion_model.transformer_blocks.0.scale_shift_table"), "unknown target"),
        (pair("transformer_blocks.0.attn1.to_q"), "unknown tensor"),
    ],
)
def test_what_is_no_lora_of_this_model_is_refused(
    tiny: Checkpoint, tmp_path: Path, tensors: Tensors, message: str
) -> None:
    """Empty files, rank 0, vectors, layers that aren't linear and names without the prefix."""
    with pytest.raises(CheckpointError, match=message):
        read(tiny, write(tmp_path / "bad.safetensors", tensors))


def test_damaged_and_absent_files_are_refused(tiny: Checkpoint, tmp_path: Path) -> None:
    """A truncated file is told with its sizes, one that isn't there by its path."""
    path = write(tmp_path / "cut.safetensors", pair(QUERY))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SafetensorsError, match="truncated"):
        read(tiny, path)
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        read(tiny, Path("nowhere"))


def test_alpha_is_ignored(tiny: Checkpoint, tmp_path: Path) -> None:
    """As the official loader does: the strength alone scales."""
    path = write(tmp_path / "a.safetensors", {**pair(QUERY), f"{QUERY}.alpha": np.zeros((), np.float32)})
    assert list(read(tiny, path).everywhere[0].targets) == [f"model.{QUERY}.weight"]


def test_the_distilled_lora_must_not_reach_beyond_the_transformer(tiny: Checkpoint, tmp_path: Path) -> None:
    """Both stages have one context, so a second connector would never be used."""
    path = write(tmp_path / "d.safetensors", pair(CONNECTOR))
    with pytest.raises(CheckpointError, match="unknown target"):
        read(tiny, distilled_lora=LoraFile(path))


@pytest.mark.parametrize("mesh", [False, True])
def test_merging_while_sharding_is_sharding_what_was_merged(
    tiny: Checkpoint, tmp_path: Path, mesh: bool
) -> None:
    """Two LoRAs over four ranks: the same files, to the byte, as from a checkpoint merged beforehand."""
    narrow = write(tmp_path / "narrow.safetensors", pair(QUERY))
    loras = read(tiny, LoraFile(tiny.loras[0].path, 0.8), LoraFile(narrow, -0.5)).everywhere
    model, tensors = SafetensorsFile(tiny.model), {}
    for key in (key for spec in TABLES["transformer"] for key in spec.sources):
        tensors[key] = model.view(key)
        parts = [
            delta(*map(SafetensorsFile(lora.path).view, lora.targets[key]), lora.strength, "bfloat16")
            for lora in loras
            if key in lora.targets
        ]
        if parts:
            tensors[key] = merged(tensors[key], parts, "bfloat16")
    beforehand = write(tmp_path / "merged.safetensors", tensors)
    store = Store(tmp_path / "store")
    expected = transformer(store, dict.fromkeys(tensors, beforehand), (), mesh)
    assert transformer(store, dict.fromkeys(tensors, tiny.model), loras, mesh) == expected
    assert transformer(store, dict.fromkeys(tensors, tiny.model), (), mesh) != expected


SHARD_WITH_LORA = """
import json, sys
from pathlib import Path
from ltx_cache.store import Store
from ltxbuild.weights.lora import Lora
from ltxbuild.model.params import linear, prefixed, stack
from ltxbuild.weights.sharder import shard
layers = (linear("up", f"l{i}", 4096, 8192, ("mlp", None), bias=False) for i in range(3))
table = prefixed("blocks", stack(layers))
keys = [key for spec in table for key in spec.sources]
lora = Lora(Path(sys.argv[2]), 0.5, "", {key: (f"{key}.A", f"{key}.B") for key in keys})
store = Store(Path(sys.argv[3]))
shard(table, dict.fromkeys(keys, Path(sys.argv[1])), {"mlp": "tp"}, {"tp": 4}, "bfloat16", store, int, [lora])
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def sparse(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A file of zeros that takes no room."""
    header = header_bytes([(key, "bfloat16", shape) for key, shape in shapes.items()], {})
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(2 * int(np.prod(shape)) for shape in shapes.values()))
    return path


def test_merging_needs_the_memory_of_one_tensor(tmp_path: Path) -> None:
    """Three tensors of 64 MB with a LoRA of rank 128 stay under 300 MB, the interpreter included."""
    keys = [f"l{i}.weight" for i in range(3)]
    model = sparse(tmp_path / "model", dict.fromkeys(keys, (4096, 8192)))
    halves = {f"{key}.A": (128, 8192) for key in keys} | {f"{key}.B": (4096, 128) for key in keys}
    arguments = [model, sparse(tmp_path / "lora", halves), tmp_path / "store"]
    command = [sys.executable, "-c", SHARD_WITH_LORA, *map(str, arguments)]
    peak = int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout) * 1024
    assert peak < 300 * 1000**2
