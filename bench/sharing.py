"""Bundles over HTTP on this machine: a pull against curl, and what a second resolution costs to push.

    python bench/sharing.py --size 1024 --runs 5

The server is the one of the tests, in a process of its own. A pull starts a Python process, asks for the
commit, receives, hashes and flushes. curl only receives and writes; with sha256sum after it, it does as much
as somebody does who checks what came. Every run writes to a new folder, which the next command removes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import alternate, report

TESTS = Path(__file__).parents[1] / "tests"
sys.path += [str(TESTS), str(TESTS / "builder")]

import hubserver  # noqa: E402
from bundles import fake_bundle, publish  # noqa: E402

from ltx_cache.store import Store  # noqa: E402

REPO, FILES, PROGRAM = "org/repo", 8, 1 << 20
LTXBUILD = str(Path(sys.executable).parent / "ltxbuild")


def serve() -> None:
    """Serve until the input ends; each line of it is answered by the bytes received so far."""
    with hubserver.serve(part_size=64 << 20) as hub:
        print(hub.endpoint, flush=True)
        for _ in sys.stdin:
            print(hub.received, flush=True)


@contextmanager
def server() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The server in its own process: its address, and the process."""
    command = [sys.executable, __file__, "--serve"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
        assert process.stdin is not None
        process.stdin.close()


def received(process: subprocess.Popen[str]) -> int:
    """Bytes that the server has received in requests."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def pushed(env: dict[str, str], process: subprocess.Popen[str], name: str) -> dict[str, int]:
    """Push a bundle; the bytes of its blobs, of those that were sent, and of all requests."""
    before = received(process)
    command = [LTXBUILD, "push", name, f"hf://{REPO}", "--json"]
    done = json.loads(subprocess.run(command, env=env, check=True, capture_output=True).stdout)
    return {"bundle": done["total"], "sent": done["bytes"], "requests": received(process) - before}


def commands(endpoint: str, folder: Path, store: Store, name: str) -> dict[str, list[str]]:
    """A pull, and curl for the same files."""
    manifest = store.ref(name)
    bundle: Any = json.loads(store.open(manifest).read_bytes())
    digests = [blob["sha256"] for weights in bundle["weights"].values() for blob in weights["ranks"]]
    urls = [f"{endpoint}/{REPO}/resolve/main/blobs/{digest}" for digest in digests]
    new = f"rm -rf {folder}/out; mkdir {folder}/out; cd {folder}/out"
    one_by_one = f"{new}; for url in {' '.join(urls)}; do curl -sSfLO $url; done"
    at_once = f"{new}; curl -sSfL --parallel --remote-name-all {' '.join(urls)}"
    pull = f"{new}; LTX_HOME={folder}/out {LTXBUILD} pull hf://{REPO}#{name} --allow-unsigned"
    scripts = {
        "curl": one_by_one,
        "curl --parallel": at_once,
        "curl --parallel; sha256sum": f"{at_once}; sha256sum *",
        "ltxbuild pull": pull,
    }
    return {label: ["sh", "-ec", script] for label, script in scripts.items()}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=1024, help="size of the bundle in MiB (default: 1024)")
    parser.add_argument("--runs", type=int, default=5, help="number of runs (default: 5)")
    parser.add_argument("--folder", type=Path, help="folder on the disk to use (default: a temporary one)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary, server() as (endpoint, process):
        folder = Path(temporary)
        settings = {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": hubserver.TOKEN}
        env = {**os.environ, **settings, "LTX_HOME": str(folder / "store")}
        store = Store(folder / "store")
        weights = tuple(os.urandom((options.size << 20) // FILES) for _ in range(FILES))
        for name in ("first", "second"):
            publish(store, fake_bundle(store, name, tensors=weights, code=os.urandom(PROGRAM)))
        del weights
        pushes = {name: pushed(env, process, name) for name in ("first", "second")}
        timings = alternate(commands(endpoint, folder, store, "first"), options.runs, settings)
    rates = {f"{name}, MB/s": round((options.size << 20) / 1e6 / t.median) for name, t in timings.items()}
    ratio = timings["curl --parallel; sha256sum"].median / timings["ltxbuild pull"].median
    notes = {"size": f"{options.size} MiB in {FILES} files", **rates}
    notes["curl --parallel; sha256sum / pull"] = f"{ratio:.2f}"
    notes |= {f"push of the {name} resolution, bytes": counts for name, counts in pushes.items()}
    report("sharing", timings, notes)


if __name__ == "__main__":
    main()
