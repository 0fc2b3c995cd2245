"""The streaming sharder: right bytes in the right files, in little memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ltx_cache.key import Factor, Key
from ltx_cache.store import Store
from ltx_run.safetensors import ALIGNMENT, SafetensorsError, read_header
from ltxbuild.model.params import PADDING, Layout, ParamSpec, linear, padded, prefixed, stack
from ltxbuild.weights.sharder import shard

RULES = {"heads": "tp", "mlp": "tp"}
MESH = {"tp": 4}
TABLE = (
    *prefixed("blocks", stack(linear("up", f"layer.{i}.up", 8, 6, ("mlp", None)) for i in range(3))),
    *prefixed("blocks", stack(linear("down", f"layer.{i}.down", 6, 8, (None, "mlp")) for i in range(3))),
    ParamSpec("norm", (5,), (None,), ("norm.weight",)),
    ParamSpec(
        "filter", (4, 2, 3), (None, None, None), ("filter",), Layout((3, 8), (3, 2, 4), (2, 1, 0)), "float32"
    ),
)


@pytest.fixture
def source(tmp_path: Path) -> tuple[dict[str, np.ndarray], dict[str, Path]]:
    """Random tensors for the table, in two files."""
    random = np.random.default_rng(0)
    tensors = {
        key: random.standard_normal(spec.source_shape).astype(np.float32)
        for spec in TABLE
        for key in spec.sources
    }
    files = {}
    for name, keys in (("a.safetensors", list(tensors)[::2]), ("b.safetensors", list(tensors)[1::2])):
        save_file({key: tensors[key] for key in keys}, tmp_path / name)
        files |= dict.fromkeys(keys, tmp_path / name)
    return tensors, files


def run(files: dict[str, Path], folder: Path, precision: str, mesh: dict[str, int]) -> list[Path]:
    """Shard the table; the shared file first, then the ranks'."""
    store = Store(folder / "store")
    result = shard(TABLE, files, RULES if mesh else {}, mesh, precision, store, lambda amount: None)
    assert result.shared is not None
    return [store.open(blob) for blob in (result.shared, *result.ranks)]


def test_each_rank_gets_its_slices(tmp_path: Path, source: tuple[dict, dict]) -> None:
    """Stacks are cut along the right axis; whole tensors are in the shared file only."""
    tensors, files = source
    shared, *ranks = run(files, tmp_path, "float32", MESH)
    assert sorted(load_file(shared)) == ["blocks.down.bias", "filter", "norm"]
    for rank, path in enumerate(ranks):
        got = load_file(path)
        rows = slice(2 * rank, 2 * rank + 2)
        for layer in range(3):
            np.testing.assert_array_equal(
                got["blocks.up.weight"][layer], tensors[f"layer.{layer}.up.weight"][rows]
            )
            np.testing.assert_array_equal(
                got["blocks.up.bias"][layer], tensors[f"layer.{layer}.up.bias"][rows]
            )
            np.testing.assert_array_equal(
                got["blocks.down.weight"][layer], tensors[f"layer.{layer}.down.weight"][:, rows]
            )


def test_ranks_that_hold_the_same_share_a_file(tmp_path: Path, source: tuple[dict, dict]) -> None:
    """Devices along an axis that splits no weights read one file, which is written once."""
    written: list[int] = []
    store, mesh = Store(tmp_path / "store"), {"cp": 2, "tp": 2}
    result = shard(TABLE, source[1], RULES, mesh, "bfloat16", store, written.append)
    assert result.ranks[:2] == result.ranks[2:]
    assert result.ranks[0] != result.ranks[1]
    assert len(list(store.root.glob("blobs/*/*"))) == 3
    elements = sum(spec.size * (4 if spec.storage == "float32" else 2) for spec in TABLE)
    assert sum(written) == elements


KEY = Key("weights", (Factor("component", "test"),))


def killed(files: dict[str, Path], root: Path, at: int) -> bool:
    """Shard in a child that is killed after so many parts; whether it was."""
    pid = os.fork()
    if pid == 0:
        left = [at]

        def progress(amount: int) -> None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        shard(TABLE, files, RULES, MESH, "float32", Store(root), progress, key=KEY)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def test_a_killed_build_goes_on_after_its_finished_files(
    memory: Path, source: tuple[dict, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after every part: what was finished is taken, the rest written, and the result is the same."""
    expected = shard(TABLE, source[1], RULES, MESH, "float32", Store(memory / "whole"), lambda amount: None)
    opened: list[int] = []
    writer = Store.writer
    monkeypatch.setattr(Store, "writer", lambda self: opened.append(1) or writer(self))
    at, saved = 0, set[int]()
    while killed(source[1], memory / str(at), at):
        store = Store(memory / str(at))
        finished = len(list(store.entries("shard")))
        opened.clear()
        assert shard(TABLE, source[1], RULES, MESH, "float32", store, lambda _: None, key=KEY) == expected
        assert len(opened) == 5 - finished
        saved.add(finished)
        at += 1
    assert saved == {0, 1, 3}


def test_a_finished_file_that_is_gone_is_written_again(tmp_path: Path, source: tuple[dict, dict]) -> None:
    """Taking up an interrupted build never costs a file."""
    store = Store(tmp_path / "store")
    first = shard(TABLE, source[1], RULES, MESH, "float32", store, lambda _: None, key=KEY)
    store.open(first.ranks[2]).unlink()
    written: list[int] = []
    assert shard(TABLE, source[1], RULES, MESH, "float32", store, written.append, key=KEY) == first
    assert store.has(first.ranks[2])
    whole = sum(blob.size for blob in (first.shared, *first.ranks) if blob)
    assert whole - 2000 < sum(written) <= whole


def test_layout_and_widening(tmp_path: Path, source: tuple[dict, dict]) -> None:
    """A layout is a view and a permutation; `float32` storage holds values rounded to bf16 first."""
    tensors, files = source
    (shared,) = run(files, tmp_path, "bfloat16", {})
    raw, header = shared.read_bytes(), read_header(shared)
    entry = header.entries["filter"]
    got = np.frombuffer(raw[entry.start : entry.stop], np.float32).reshape(4, 2, 3)
    rounded = tensors["filter"].astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(got, rounded.reshape(3, 2, 4).transpose(2, 1, 0))
    assert header.entries["norm"].dtype == "bfloat16"


def test_rows_that_would_alias_have_zeros_behind_them(tmp_path: Path, source: tuple[dict, dict]) -> None:
    """Only weights of linear layers whose rows are a multiple of the length: here 8, not 6."""
    (tensors, files), table = source, padded(TABLE, 8)
    assert [spec.name for spec in table if spec.padding] == ["blocks.down.weight"]
    assert [spec.source_shape for spec in table] == [spec.source_shape for spec in TABLE]
    store = Store(tmp_path / "store")
    result = shard(table, files, {}, {}, "bfloat16", store, lambda amount: None)
    assert result.shared is not None
    got = {name: value.astype(np.float32) for name, value in load_file(store.open(result.shared)).items()}
    for layer in range(3):
        weight = got["blocks.down.weight"][layer]
        want = tensors[f"layer.{layer}.down.weight"].astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(weight, np.pad(want, ((0, 0), (0, PADDING))))
    assert got["blocks.up.weight"].shape == (3, 8, 6)


def test_data_is_aligned(tmp_path: Path, source: tuple[dict, dict]) -> None:
    """Tensors of a multiple of 64 bytes start at one, whatever their order in the table."""
    (shared,) = run(source[1], tmp_path, "float32", {})
    entries = read_header(shared).entries.values()
    aligned = [e for e in entries if (e.stop - e.start) % ALIGNMENT == 0]
    assert len(aligned) >= 2
    assert all(e.start % ALIGNMENT == 0 for e in aligned)


def test_the_same_input_gives_the_same_files(tmp_path: Path, source: tuple[dict, dict]) -> None:
    """Sharding twice gives the same digests."""
    first = run(source[1], tmp_path / "one", "bfloat16", MESH)
    second = run(source[1], tmp_path / "two", "bfloat16", MESH)
    assert [p.name for p in first] == [p.name for p in second]


def test_a_truncated_source_is_refused(tmp_path: Path, source: tuple[dict, dict]) -> None:
    """A file that ends early is named with both sizes, and nothing is published."""
    path = next(iter(source[1].values()))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SafetensorsError, match=f"{path.name}: truncated"):
        run(source[1], tmp_path, "float32", MESH)
    assert not list((tmp_path / "store").glob("blobs/*/*"))


SHARD_2GB = """
import json, sys
from pathlib import Path
from ltx_cache.store import Store
from ltxbuild.model.params import linear, prefixed, stack
from ltxbuild.weights.sharder import shard
layers = (linear("up", f"l{i}", 4096, 8192, ("mlp", None), bias=False) for i in range(32))
table = prefixed("blocks", stack(layers))
files = {key: Path(sys.argv[1]) for spec in table for key in spec.sources}
store = Store(Path(sys.argv[2]))
result = shard(table, files, {"mlp": "tp"}, {"tp": 4}, "bfloat16", store, lambda amount: None)
status = Path("/proc/self/status").read_text()  # rusage would count the parent up to exec
peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps({"peak": peak, "bytes": sum(blob.size for blob in result.ranks)}))
"""


def test_two_gigabytes_are_sharded_in_little_memory(tmp_path: Path) -> None:
    """Peak memory stays under 200 MB for a 2 GB checkpoint: one tensor, one slice and the interpreter."""
    path = tmp_path / "big.safetensors"
    size = 4096 * 8192 * 2
    names = [f"l{i}.weight" for i in range(32)]
    header = {
        name: {"dtype": "BF16", "shape": [4096, 8192], "data_offsets": [i * size, (i + 1) * size]}
        for i, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 32 * size)
    done = subprocess.run(
        [sys.executable, "-c", SHARD_2GB, str(path), str(tmp_path / "store")],
        stdout=subprocess.PIPE,
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["bytes"] > 2 * 1000**3
    assert report["peak"] < 200 * 1000**2, report
