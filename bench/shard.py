"""Throughput and memory of the sharder against `cp` with hashing, and against load, slice, save in torch.

    python bench/shard.py --gigabytes 1.6 --devices 8 --folder /mnt/disk

A checkpoint in the official layout is made first: as many blocks of the 22 B transformer as fit the size, of
noise, over several files. They are cut by heads for `--devices`: row- and column-parallel, stacked layers.
Each step is a process of its own, so the start of its interpreter counts; each round has another order.

`cp` copies the files, flushes them as the store does, and hashes them one by one. torch loads all files,
cuts each tensor and writes one file per device; it neither hashes nor flushes. Memory is the system's figure
for the peak of a process, which counts the pages of the checkpoint that are mapped.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness import Timing, report

from ltx_run.distribution import index_of, part_of
from ltx_run.safetensors import header_bytes, read_header
from ltxbuild.components import COMPONENTS
from ltxbuild.model.params import ParamTable
from ltxbuild.plan.profiles import partition
from ltxbuild.synthetic.shipped import shipped_config

RULES = {"heads": "tp", "mlp": "tp"}
NOISE = 64 << 20


def table_of(blocks: int) -> ParamTable:
    """The parameters of so many blocks of the 22 B transformer."""
    config = shipped_config("ltx-2.3-22b")
    transformer = config.ltx.transformer.model_copy(update={"num_layers": blocks})
    ltx = config.ltx.model_copy(update={"transformer": transformer})
    table = COMPONENTS["transformer"].table(type(config)(ltx, config.gemma, config.upsampler))
    return tuple(spec for spec in table if spec.stacked)


def blocks_for(gigabytes: float) -> int:
    """As many blocks as fit, in bfloat16; at least one."""
    return max(1, int(gigabytes * 1e9 / (2 * sum(spec.size for spec in table_of(1)))))


def write_checkpoint(folder: Path, table: ParamTable, files: int) -> None:
    """Noise, the tensors dealt out over the files."""
    tensors = sorted((key, spec.source_shape) for spec in table for key in spec.sources)
    noise = memoryview(random.Random(0).randbytes(NOISE))
    for number in range(files):
        part = tensors[number::files]
        with (folder / f"model-{number}.safetensors").open("wb") as file:
            file.write(header_bytes(((key, "bfloat16", shape) for key, shape in part), {}))
            left = sum(2 * math.prod(shape) for _, shape in part)
            while left:
                left -= file.write(noise[: min(left, NOISE)])


def files_of(folder: Path) -> dict[str, Path]:
    """The file of each checkpoint key."""
    paths = sorted(folder.glob("*.safetensors"))
    return {key: path for path in paths for key in read_header(path).entries}


def sharder(source: Path, target: Path, blocks: int, devices: int, precision: str) -> None:
    """Into a store, by the sharder."""
    from ltx_cache.store import Store
    from ltxbuild.weights.sharder import shard

    table, mesh, store = table_of(blocks), {"tp": devices}, Store(target)
    shard(table, files_of(source), RULES, mesh, precision, store, lambda amount: None)


def torch(source: Path, target: Path, blocks: int, devices: int, precision: str) -> None:
    """Into one file per device, as a script that knows torch would."""
    import torch
    from safetensors.torch import load_file, save_file

    target.mkdir()
    loaded = {}
    for path in sorted(source.glob("*.safetensors")):
        loaded |= load_file(path)
    dtype = getattr(torch, precision)
    for rank in range(devices):
        tensors = {}
        for spec in table_of(blocks):
            slices = index_of(part_of(spec.shape, partition(spec, RULES), {"tp": devices}, rank))
            parts = [loaded[key][slices[1:]] for key in spec.sources]
            tensors[spec.name] = torch.stack(parts).to(dtype)
        save_file(tensors, target / f"rank-{rank}.safetensors")


def copy(source: Path, target: Path, *_: object) -> None:
    """The files as they are, flushed, then hashed."""
    subprocess.run(["cp", "-r", source, target], check=True)
    for path in sorted(target.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        subprocess.run(["sha256sum", path], check=True, stdout=subprocess.DEVNULL)


STEPS: dict[str, Callable[..., None]] = {"sharder": sharder, "cp, sha256sum": copy, "torch": torch}


def measured(name: str, source: Path, target: Path, arguments: list[str]) -> tuple[float, int]:
    """Seconds and peak bytes of a step in its own process."""
    os.sync()
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, __file__, "--step", name, str(source), str(target), *arguments]
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{name} failed")
    shutil.rmtree(target)
    return seconds, usage.ru_maxrss * 1024


def main() -> None:
    """Measure and report."""
    if sys.argv[1:2] == ["--step"]:
        _, _, name, source, target, blocks, devices, precision = sys.argv
        STEPS[name](Path(source), Path(target), int(blocks), int(devices), precision)
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.6, help="size of the checkpoint (default: 1.6)")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--files", type=int, default=2, help="source files (default: 2)")
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: a temporary one)")
    options = parser.parse_args()
    blocks = blocks_for(options.gigabytes)
    table = table_of(blocks)
    arguments = [str(blocks), str(options.devices), options.precision]
    runs: dict[str, list[tuple[float, int]]] = {name: [] for name in options.steps}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source = Path(folder) / "source"
        source.mkdir()
        write_checkpoint(source, table, options.files)
        for _ in range(options.runs):
            for name in random.sample(options.steps, len(options.steps)):
                runs[name].append(measured(name, source, Path(folder) / "target", arguments))
    size = 2 * sum(spec.size for spec in table)
    show(runs, {"blocks": blocks, "bytes": size, **vars(options), "folder": str(options.folder)})


def show(runs: dict[str, list[tuple[float, int]]], settings: dict[str, object]) -> None:
    """Timings, peaks, and the median of each round's ratio."""
    timings = {}
    notes = dict(settings)
    for name, measures in runs.items():
        seconds = [took for took, _ in measures]
        timings[name] = Timing(statistics.median(seconds), min(seconds), max(seconds), len(seconds))
        notes[f"peak memory, {name}"] = f"{max(peak for _, peak in measures) / 1e6:.0f} MB"
    for name in runs:
        if name != "sharder" and "sharder" in runs:
            pairs = zip(runs[name], runs["sharder"], strict=True)
            notes[f"{name} / sharder"] = round(
                statistics.median(other[0] / own[0] for other, own in pairs), 2
            )
    report("shard", timings, notes)


if __name__ == "__main__":
    main()
