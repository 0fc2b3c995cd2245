"""The compile process: takes jobs on standard input, lowers and compiles them, puts executables in the store.

Compilers keep flags per process (`XLA_FLAGS`), can crash, and use memory that only the end of a process
gives back; so they never run in the builder's own process. A job is a folder with `job.json`; the answer is
`result.json` in it. The environment is the target's (`ltxbuild.targets`), scrubbed of everything that could
change the generated code behind the key's back.

Run as: python -m ltxbuild.compiler.worker STORE_ROOT SCRATCH

It leads a process group of its own. When standard input ends, its builder is gone: then it removes the
folder SCRATCH and ends at once with everything that it has started, since nobody waits for the result.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NoReturn

KEPT = {"executable", "runtime", "features", "memory", "census"}
"""Fields of what is kept of an executable; one with others is another version's, and made again."""


def main() -> NoReturn:
    """Serve jobs until standard input ends; one folder path per line, one `done` line per job."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    store_root, scratch = map(Path, sys.argv[1:])
    jobs = SimpleQueue[Path]()
    threading.Thread(target=_listen, args=(jobs, scratch), daemon=True).start()
    while True:
        folder = jobs.get()
        result = _attempt(folder, store_root)
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
        print("done", file=replies, flush=True)


def _listen(jobs: SimpleQueue[Path], scratch: Path) -> None:
    """Take jobs beside the one that runs; only so is the end of standard input noticed during a compile."""
    for line in sys.stdin:
        jobs.put(Path(line.strip()))
    shutil.rmtree(scratch, ignore_errors=True)
    with suppress(ProcessLookupError, PermissionError):  # started by hand it leads no group
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _attempt(folder: Path, store_root: Path) -> dict[str, Any]:
    try:
        job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        return compile_job(job, store_root)
    except Exception as error:  # whatever the compiler throws belongs in the log, not in a crash
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def compile_job(job: Mapping[str, Any], store_root: Path) -> dict[str, Any]:
    """Lower and compile one program.

    Returns:
        The `Program` record's parts that the compiler knows, and the seconds spent.
    """
    import msgspec

    from ltx_cache.key import Factor, Key
    from ltx_cache.store import Hit, Store
    from ltxbuild.compiler.lower import lower
    from ltxbuild.components import COMPONENTS, ModelConfig
    from ltxbuild.model.config import GemmaConfig, LtxConfig, UpsamplerConfig
    from ltxbuild.model.params import padded
    from ltxbuild.plan.profiles import device_count
    from ltxbuild.plan.programspec import Forms, ProgramSpec
    from ltxbuild.programs import traceable

    configs = job["config"]
    config = ModelConfig(
        LtxConfig.model_validate(configs["ltx"]),
        GemmaConfig.model_validate(configs["gemma"]),
        UpsamplerConfig.model_validate(configs["upsampler"]) if configs["upsampler"] else None,
    )
    spec = ProgramSpec(
        job["spec"]["id"],
        job["spec"]["kind"],
        job["spec"]["component"],
        tuple((name, value) for name, value in job["spec"]["geometry"]),
    )
    forms = Forms(**job["forms"])
    table = padded(COMPONENTS[spec.component].table(config), forms.aliasing) if spec.component else ()
    started = time.monotonic()
    program = traceable(spec, config, job["precision"], forms)
    backend = import_module(job["backend"])
    devices = backend.devices(job["target"], device_count(job["mesh"]))
    rules, mesh = job["rules"], job["mesh"]
    lowered = lower(program, table, rules, mesh, devices, job["precision"], layers=forms.layers)
    lowered_at = time.monotonic()

    store = Store(store_root)
    key = Key(
        "executable",
        (
            Factor("lowered", lowered.digest),
            Factor("target", job["target"]),
            Factor("flags", job["flags"]),
            Factor("compiler", job["compiler"]),
        ),
    )
    match store.lookup(key):
        case Hit(value=dict(compiled)) if compiled.keys() == KEPT:
            reused = True
        case _:
            made = backend.compile(lowered, job["target"], job["flags"])
            compiled, blob = _kept(made, store)
            store.put_entry(key, compiled, [blob])
            reused = False
    return {
        **compiled,
        "flops": lowered.flops,  # not kept: another version may have counted them otherwise
        "portable": _portable(lowered, job["flags"], store) if job["portable"] else None,
        "inputs": msgspec.to_builtins(lowered.inputs),
        "outputs": msgspec.to_builtins(lowered.outputs),
        "reused": reused,
        "seconds": {"lower": lowered_at - started, "compile": time.monotonic() - lowered_at},
    }


def _portable(lowered: Any, flags: Mapping[str, Any], store: Any) -> dict[str, Any]:
    """What `ltx_run.portable` compiles: the lowered program in the store, and the flags."""
    from ltx_run.portable import packed
    from ltxbuild.compiler.artifact import portable_artifact

    blob = store.put_bytes(packed(portable_artifact(lowered.module)))
    return {"module": {"sha256": blob.sha256, "size": blob.size}, "flags": dict(flags)}


def _kept(made: Any, store: Any) -> tuple[dict[str, Any], Any]:
    """The executable in the store, and what the record says of it."""
    import msgspec

    blob = store.put_bytes(made.code)
    record = {
        "executable": {"sha256": blob.sha256, "size": blob.size},
        "runtime": made.runtime,
        "features": list(made.features),
        "memory": made.memory,
        "census": msgspec.to_builtins(made.census),
    }
    return record, blob


if __name__ == "__main__":
    main()
