"""`ltxbuild compile` of the tiny recipe with a stand-in for the compile process, which needs no time.

    python standin.py CHECKPOINT

All else is real: planning, locks, sharding, entries, the bundle. Prints the names of the programs that were
compiled, and of the weight sets that were sharded, one per line.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ltxbuild.build
from ltx_cache.key import Factor, Key
from ltx_cache.store import Store
from ltx_run.console import guarded
from ltxbuild.cli.main import cli

RECIPE = Path(__file__).parents[2] / "recipes/cpu_tiny.yaml"


def tell(name: str) -> None:
    """Print a line in one piece: others print at the same time."""
    os.write(1, f"{name}\n".encode())


class Pool:
    """Compile processes that need no time."""

    def __init__(self, size: int, store: Store) -> None:
        self._store = store
        self.closed = threading.Event()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None:
        """Give up what others wait for."""
        self.closed.set()

    def compile(self, name: str, *_: object) -> dict[str, Any]:
        """Store an executable and its entry."""
        tell(name)
        code = self._store.put_bytes(name.encode())
        made = {
            "executable": {"sha256": code.sha256, "size": code.size},
            "runtime": "none",
            "features": [],
            "memory": {"arguments": 0, "outputs": 0, "temp": 0, "code": code.size},
            "flops": 0.0,
        }
        self._store.put_entry(Key("executable", (Factor("lowered", name),)), made, [code])
        seconds = {"lower": 0.0, "compile": 0.0}
        return {**made, "inputs": [], "outputs": [], "reused": False, "seconds": seconds}


def install(threads: type = ThreadPoolExecutor) -> None:
    """Compile by the stand-in from now on, and tell of each weight set that is sharded."""
    shard = ltxbuild.build.shard

    def telling(table: Any, *args: Any) -> Any:
        tell(table[0].sources[0])
        return shard(table, *args)

    builder: Any = ltxbuild.build
    builder.WorkerPool, builder.ThreadPoolExecutor, builder.shard = Pool, threads, telling


def compile_tiny(checkpoint: Path, height: int = 128) -> None:
    """The command."""
    recipe = checkpoint / f"{height}.yaml"
    if not recipe.exists():
        variants = f"{{default: {{height: {height}, width: 192, frames: 17, fps: 24}}}}"
        recipe.write_text(f"extends: {RECIPE}\nvariants: {variants}\n", encoding="utf-8")
    files = ("--checkpoint", str(checkpoint / "ltx-2.3-tiny.safetensors"))
    cli(["compile", str(recipe), *files, "--text-encoder", str(checkpoint / "gemma")], standalone_mode=False)


if __name__ == "__main__":
    install()
    guarded(lambda **_: compile_tiny(Path(sys.argv[1])))
