"""Throughput of the store against `cp` and a plain sha256 of the same file.

    python bench/store.py --size 1024 --runs 9 --folder /mnt/disk

Prints MB/s of each step (median of the runs), and the time of `cp` plus sha256 over the time of a put. Above
1, storing is quicker than copying and hashing one after the other, although it also flushes to the disk.

The source is in the page cache, the steps come in another order each run, and each begins when earlier writes
are flushed. Use a folder on the disk that is to hold the store, and an idle machine.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from ltx_cache.store import Store

BLOCK = 64 << 20
PUTS = ("put_file", "writer, from memory")


class Bench:
    """The steps, each without the cleaning up after it."""

    def __init__(self, folder: Path, size: int) -> None:
        self.source, self.copy, self.root = folder / "source", folder / "copy", folder / "store"
        self.size = size
        self.block = os.urandom(min(BLOCK, size))
        with self.source.open("wb") as file:
            for _ in range(0, size, len(self.block)):
                file.write(os.urandom(len(self.block)))
        self.kept = Store(folder / "kept")
        self.blob = self.kept.put_file(self.source)
        self.steps = {
            "cp": self.cp,
            "sha256": self.sha256,
            "open, first read": self.first_read,
            "put_file": self.put_file,
            "writer, from memory": self.write,
        }

    def cp(self) -> None:
        """Copy by the system's tool, which doesn't flush."""
        subprocess.run(["cp", self.source, self.copy], check=True)

    def sha256(self) -> None:
        """Hash by the standard library's own loop."""
        with self.source.open("rb") as file:
            hashlib.file_digest(file, "sha256").hexdigest()

    def first_read(self) -> None:
        """Open a blob that has no stamp."""
        self.kept.open(self.blob)

    def put_file(self) -> None:
        """Store the file."""
        Store(self.root).put_file(self.source)

    def write(self) -> None:
        """Store blocks from memory, as the sharding of weights does."""
        with Store(self.root).writer() as w:
            for _ in range(0, self.size, len(self.block)):
                w.write(self.block)
            w.commit()

    def run(self) -> dict[str, float]:
        """Seconds of every step."""
        took = {}
        for name, step in random.sample(list(self.steps.items()), len(self.steps)):
            shutil.rmtree(self.kept.root / "stamps")
            os.sync()
            start = time.perf_counter()
            step()
            took[name] = time.perf_counter() - start
            (self.kept.root / "stamps").mkdir(exist_ok=True)
            self.copy.unlink(missing_ok=True)
            shutil.rmtree(self.root, ignore_errors=True)
        return took


def report(size: int, runs: list[dict[str, float]]) -> None:
    """Print medians."""
    median = {step: statistics.median(run[step] for run in runs) for step in runs[0]}
    for step, took in sorted(median.items()):
        print(f"{step:20} {size / took / 1e6:8.0f} MB/s")
    for step in PUTS:
        print(f"(cp + sha256) / {step}: {(median['cp'] + median['sha256']) / median[step]:.2f}")
    print(f"sha256 / open, first read: {median['sha256'] / median['open, first read']:.2f}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=1024, help="size of the file in MiB (default: 1024)")
    parser.add_argument("--runs", type=int, default=9, help="number of runs (default: 9)")
    parser.add_argument(
        "--folder", type=Path, help="folder on the disk to measure (default: a temporary one)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        bench = Bench(Path(folder), options.size << 20)
        report(bench.size, [bench.run() for _ in range(options.runs)])


if __name__ == "__main__":
    main()
