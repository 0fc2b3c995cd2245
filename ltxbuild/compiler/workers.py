"""A pool of compile processes, each serving one job at a time.

Guarantees: a crash or a kill of one process fails its job alone; leaving the pool, or the end of the process
that has it, ends every process with what it has started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ltx_cache.store import Store
from ltxbuild.environment import scrubbed
from ltxbuild.errors import BuildFailed

OWN = {
    "PYTHONUNBUFFERED": "1",
    # Else executables name the folders of the machine that made them, and differ from those of another.
    "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "0",
}
"""Variables of compile processes, unless the target has others."""
TAIL = 15
"""Lines of a failed compile's log that are shown."""


class _Worker:
    """One compile process and the log it writes."""

    def __init__(
        self, store_root: Path, scratch: str, environment: Mapping[str, str], log: IO[bytes]
    ) -> None:
        self.log = Path(log.name)
        self.environment = environment
        self.process = subprocess.Popen(
            # -P: else the folder it is started in would come before the packages that the key speaks of.
            [sys.executable, "-P", "-m", "ltxbuild.compiler.worker", str(store_root), scratch],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**scrubbed(), **OWN, "TMPDIR": scratch, **environment},
            text=True,
            start_new_session=True,  # Ctrl-C is the builder's, which ends it as a group
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
        self._kill()  # what it has started may still run
        return f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def close(self) -> None:
        """End it with everything that it has started."""
        if self.process.returncode is None:
            self._kill()
            self.process.wait()

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # the latter on macOS, if it has ended already
            os.killpg(self.process.pid, signal.SIGKILL)


class WorkerPool:
    """Compile processes, started as jobs need them; a process serves jobs of one environment.

    Attributes:
        closed: Set once what compiles is given up.
    """

    def __init__(self, size: int, store: Store) -> None:
        """Prepare a pool of at most `size` processes that put their results into `store`."""
        self._store = store
        self._free = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._started: list[_Worker] = []
        self.closed = threading.Event()
        # Threads that still compile when the pool is closed may write there once more.
        self._folder = tempfile.TemporaryDirectory(prefix="ltxbuild-", ignore_cleanup_errors=True)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process; compiles that run or wait are given up."""
        self.closed.set()
        with self._lock:
            for worker in self._started:
                worker.close()
        self._folder.cleanup()

    def compile(self, name: str, job: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
        """Compile one program; blocks until a process is free and the job is done.

        Args:
            name: Of the program, for messages and the log.
            job: What `worker.compile_job` takes.
            environment: Variables of the target, beside this process's own without what the target scrubs.

        Raises:
            BuildFailed: The compiler refused the program or died; the log is kept and its tail shown.
            CancelledError: The pool was closed.
        """
        with self._free:
            worker = self._take(environment)
            try:
                folder = Path(tempfile.mkdtemp(dir=self._folder.name))
                (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
                offset = worker.log.stat().st_size
            except OSError:
                if self.closed.is_set():  # its folder is gone
                    raise CancelledError(name) from None
                raise
            died = worker.serve(folder)
            with self._lock:
                if self.closed.is_set():
                    raise CancelledError(name)
                if not died:
                    self._idle.append(worker)
        result: dict[str, Any] = {"error": f"the compiler was {died}"} if died else _read(folder)
        if "error" in result:
            raise self._failure(name, str(result["error"]), worker.log, offset)
        return result

    def _take(self, environment: Mapping[str, str]) -> _Worker:
        """An idle process with that environment, or a new one in the place of an idle one."""
        with self._lock:
            if self.closed.is_set():
                raise CancelledError
            for worker in self._idle:
                if worker.environment == environment:
                    self._idle.remove(worker)
                    return worker
            if self._idle:
                self._idle.pop(0).close()
            with tempfile.NamedTemporaryFile(dir=self._folder.name, suffix=".log", delete=False) as log:
                worker = _Worker(self._store.root, self._folder.name, environment, log)
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
