"""Throughput of the store against `cp` and a plain sha256 of the same file.

    python bench/store.py --sizes 1 64 512 --runs 7 --folder /mnt/disk

Each ratio is the median over the rounds of what the peer took over what the store took in the same round:
above 1, the store is quicker. The peers of a put are `cp` with a flush of the copy, as the store flushes too,
and a plain sha256, one after the other; of a first read a plain sha256; of a later one reading the file.

The source is in the page cache, the steps come in another order each round, and each begins when earlier
writes are flushed. Use a folder on the disk that is to hold the store, and an idle machine.
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

from harness import Timing, report

from ltx_cache.store import Store

BLOCK = 64 << 20
PEERS = {
    "put_file": ("cp", "sha256"),
    "writer, from memory": ("cp", "sha256"),
    "open, first time": ("sha256",),
    "open and read later": ("read",),
}
"""What each step of the store is compared with, one after the other."""


class Bench:
    """The steps, each without the cleaning up after it."""

    def __init__(self, folder: Path, size: int) -> None:
        self.source, self.copy, self.store = folder / "source", folder / "copy", Store(folder / "store")
        self.size = size
        self.block = os.urandom(min(BLOCK, size))
        with self.source.open("wb") as file:
            for _ in range(0, size, len(self.block)):
                file.write(os.urandom(len(self.block)))
        self.kept = Store(folder / "kept")
        self.blob = self.kept.put_file(self.source)
        self.stamped = Store(folder / "stamped")
        self.stamped_blob = self.stamped.put_file(self.source)
        self.steps = {
            "cp": self.cp,
            "sha256": self.sha256,
            "read": self.read,
            "open, first time": self.first_read,
            "open and read later": self.later_read,
            "put_file": self.put_file,
            "writer, from memory": self.write,
        }

    def cp(self) -> None:
        """Copy by the system's tool, and flush."""
        subprocess.run(["cp", self.source, self.copy], check=True)
        with self.copy.open("rb") as file:
            os.fsync(file.fileno())

    def read(self) -> None:
        """Read the file."""
        self.source.read_bytes()

    def later_read(self) -> None:
        """Open a blob that has a stamp, and read it."""
        self.stamped.open(self.stamped_blob).read_bytes()

    def sha256(self) -> None:
        """Hash by the standard library's own loop."""
        with self.source.open("rb") as file:
            hashlib.file_digest(file, "sha256").hexdigest()

    def first_read(self) -> None:
        """Open a blob that has no stamp."""
        self.kept.open(self.blob)

    def put_file(self) -> None:
        """Store the file."""
        self.store.put_file(self.source)

    def write(self) -> None:
        """Store blocks from memory, as the sharding of weights does."""
        with self.store.writer() as w:
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
            for path in self.store.root.glob("*/*/*"):
                path.unlink()
        return took


def measured(folder: Path, mebibytes: int, count: int) -> tuple[dict[str, Timing], dict[str, object]]:
    """Timings of each step, and the ratios, for one size."""
    bench = Bench(folder, mebibytes << 20)
    runs = [bench.run() for _ in range(count)]
    timings, notes = {}, dict[str, object]()
    for step in sorted(bench.steps):
        times = [run[step] for run in runs]
        timings[f"{mebibytes} MiB, {step}"] = Timing(statistics.median(times), min(times), max(times), count)
    for step, peers in PEERS.items():
        ratios = [sum(run[peer] for peer in peers) / run[step] for run in runs]
        notes[f"{mebibytes} MiB, ({' + '.join(peers)}) / {step}"] = round(statistics.median(ratios), 2)
    return timings, notes


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1, 64, 512], help="in MiB (default: 1 64 512)"
    )
    parser.add_argument("--runs", type=int, default=7, help="number of rounds (default: 7)")
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: a temporary one)")
    options = parser.parse_args()
    timings: dict[str, Timing] = {}
    notes: dict[str, object] = {}
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            found = measured(Path(folder), size, options.runs)
        timings |= found[0]
        notes |= found[1]
    report("store", timings, notes)


if __name__ == "__main__":
    main()
