"""A pool of compile processes, each serving one job at a time.

Guarantees: a crash or a kill of one process fails its job alone; leaving the pool ends every process.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ltx_cache.store import Store
from ltxbuild.errors import BuildFailed

TAIL = 15
"""Lines of a failed compile's log that are shown."""


class _Worker:
    """One compile process and the log it writes."""

    def __init__(self, store_root: Path, environment: Mapping[str, str], log: IO[bytes]) -> None:
        self.log = Path(log.name)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ltxbuild.compiler.worker", str(store_root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=dict(environment),
            text=True,
        )

    def serve(self, folder: Path) -> str | None:
        """Have one job done; a text says how the process died, None that it answered."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{folder}\n")
            self.process.stdin.flush()
            if self.process.stdout.readline().strip() == "done":
                return None
        except BrokenPipeError:
            pass
        code = self.process.wait()
        return f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class WorkerPool:
    """Compile processes, started as jobs need them."""

    def __init__(self, size: int, store: Store, environment: Mapping[str, str]) -> None:
        """Prepare a pool of at most `size` processes that put their results into `store`."""
        self._store, self._environment = store, environment
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(size):
            self._idle.put(None)
        self._started: list[_Worker] = []
        self._folder = tempfile.TemporaryDirectory(prefix="ltxbuild-")

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._started:
            worker.close()
        self._folder.cleanup()

    def compile(self, name: str, job: Mapping[str, Any]) -> dict[str, Any]:
        """Compile one program; blocks until a process is free and the job is done.

        Raises:
            BuildFailed: The compiler refused the program or died; the log is kept and its tail shown.
        """
        worker = self._idle.get() or self._start()
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        offset = worker.log.stat().st_size
        died = worker.serve(folder)
        self._idle.put(None if died else worker)
        result: dict[str, Any] = {"error": f"the compiler was {died}"} if died else _read(folder)
        if "error" in result:
            raise self._failure(name, str(result["error"]), worker.log, offset)
        return result

    def _start(self) -> _Worker:
        with tempfile.NamedTemporaryFile(dir=self._folder.name, suffix=".log", delete=False) as log:
            worker = _Worker(self._store.root, self._environment, log)
        self._started.append(worker)
        return worker

    def _failure(self, name: str, error: str, log: Path, offset: int) -> BuildFailed:
        text = log.read_bytes()[offset:].decode(errors="replace")
        kept = self._store.log_path(name)
        kept.write_text(text, encoding="utf-8")
        tail = "\n    ".join(text.splitlines()[-TAIL:])
        return BuildFailed(f"{name} did not compile: {error}\n    {tail}", hint=f"the whole log: {kept}")


def _read(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return result
