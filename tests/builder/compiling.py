"""`ltxbuild compile` killed at system calls that change a file, one child per kill, and what it leaves.

    python compiling.py CHECKPOINT FOLDER STEP

Kills at call 0, STEP, 2 * STEP, ... until a child comes to its end. All is real but XLA: the compile
process is a stand-in. One weight set and one program are missing at the start, and the old bundle is there.
Prints a line of JSON: the calls of the last child, and what went wrong.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import standin
from crashing import CALLS, killing
from standin import compile_tiny

from ltx_cache.store import Store
from ltx_cache.verify import verify
from ltx_run.contents import contents

MISSING = {"program": "vocoder", "weights": "connectors", "shard": "connectors"}


class Threads:
    """An executor that does its work at once, so that the calls come in the same order each time."""

    def __init__(self, max_workers: int) -> None: ...
    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(work(*args))
        return future


def prepare(base: Path, checkpoint: Path) -> None:
    """A store with an old bundle and most of a new one."""
    os.environ["LTX_HOME"] = str(base)
    compile_tiny(checkpoint, 64)
    old = Store(base).ref("cpu-tiny")
    compile_tiny(checkpoint)
    store = Store(base)
    store.set_ref("cpu-tiny", old)
    for kind, name in MISSING.items():
        for key in store.entries(kind):
            if name in key.values.values():
                (base / "entries" / kind / f"{key.digest}.json").unlink()


def killed(root: Path, checkpoint: Path, at: int) -> list[str] | None:
    """Run a child; its calls if it came to its end."""
    os.environ["LTX_HOME"] = str(root)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        trace = list[str]()
        for name in CALLS:
            setattr(os, name, killing(name, at, False, trace))
        compile_tiny(checkpoint)
        os.write(write, " ".join(trace).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        calls = answer.read().split()
    status = os.waitpid(pid, 0)[1]
    assert status == (0 if calls else signal.SIGKILL), status
    return calls or None


def faults(root: Path, checkpoint: Path) -> list[str]:
    """What is wrong with a store before and after the next compile."""
    store = Store(root)
    found = [f"{problem}" for problem in verify(store, contents).problems]
    before = store.ref("cpu-tiny")
    compile_tiny(checkpoint)
    found += [f"then {problem}" for problem in verify(store, contents).problems]
    missing = [str(ref) for ref in contents(store.open(before).read_bytes()) if not store.has(ref)]
    return [*found, *missing]


def main(checkpoint: Path, folder: Path, step: int) -> None:
    """Kill, look, compile, look."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    standin.install(Threads)
    prepare(folder / "base", checkpoint)
    at, calls, wrong, bundles = 0, None, dict[int, list[str]](), set[str]()
    while calls is None:
        root = folder / "store"
        copytree(folder / "base", root)
        calls = killed(root, checkpoint, at)
        bundles.add(Store(root).ref("cpu-tiny").sha256)
        if found := faults(root, checkpoint):
            wrong[at] = found
        rmtree(root)
        at += step
    print(json.dumps({"calls": calls, "wrong": wrong, "bundles": len(bundles)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
