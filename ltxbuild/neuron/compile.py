"""Running neuronx-cc on a graph."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ltx_run.neuron.neff import BadNeff, read_header
from ltxbuild.environment import scrubbed
from ltxbuild.errors import BuildFailed
from ltxbuild.neuron import guard
from ltxbuild.neuron.command import GRAPH, LOG, NEFF

OUTPUT = "output.txt"
"""What it prints, in its folder."""
LIMIT = 4 * 3600.0
"""Seconds that a compile may take; the longest that are known of took half an hour."""
INTERVAL = 0.5
"""Seconds between two looks whether the result is still wanted."""
TAIL = 15
"""Lines of a failed compile's log that are shown."""
MEMORY = "memory ran out, most likely: use a machine with more, or end what else runs on it"
REASONS = (
    (r"F137|Killed|signal 9\b", MEMORY),
    (r"EVRF007|EBVF030|EXTP004", "too many instructions: compile a smaller variant, or with optlevel 1"),
    (r"EVRF009|EOOM00[12]|EXSP001", "it would not fit into the device's memory: compile a smaller variant"),
    (r"EUOC002|EVRF001", "this version doesn't know an operation of the graph: the log names it"),
    (r"EARG001", "this version can't compile for logical cores of that size (flag lnc)"),
)
"""What to make of a log; source: the list of error codes in AWS Neuron's documentation."""


def compile_graph(
    name: str,
    graph: Path,
    command: Sequence[str],
    environment: Mapping[str, str],
    lnc: int,
    log: Path,
    stop: threading.Event,
) -> bytes:
    """Compile one graph.

    The compiler gets a folder of its own, because it leaves files where it runs, and no variable that reaches
    code generation but those given. Whatever becomes of it, its log is kept, unless it is stopped.

    Args:
        name: Of the program, for messages.
        graph: File with the graph.
        command: The compiler and its arguments; files in them are relative to the folder.
        environment: Variables beside the scrubbed environment.
        lnc: Physical cores of a logical one that the NEFF must be for.
        log: Where its log goes.
        stop: Set by another thread when nobody wants the result any more; then it ends.

    Returns:
        The NEFF.

    Raises:
        BuildFailed: It refused the graph, died, took too long, or made something else than was asked for.
        CancelledError: It was stopped.
    """
    with _folder(name) as folder:
        shutil.copyfile(graph, folder / GRAPH)
        with (folder / OUTPUT).open("wb") as output:
            code = _run(command, folder, {**scrubbed(), "TMPDIR": str(folder), **environment}, output, stop)
        said = _kept_log(folder, command, log)
        problem = _exit(code) or _result(folder / NEFF, lnc)
        if problem:
            reason = next(
                (text for pattern, text in REASONS if re.search(pattern, f"{problem} {said}")), None
            )
            tail = "\n    ".join(said.splitlines()[-TAIL:])
            because = f" ({reason})" if reason else ""
            raise BuildFailed(f"{name}: {problem}{because}\n    {tail}", hint=f"the whole log: {log}")
        return (folder / NEFF).read_bytes()


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    """A folder for a compile; what can't be written there is an error of the build."""
    try:
        with tempfile.TemporaryDirectory(prefix="ltxbuild-neuronx-cc-") as folder:
            yield Path(folder)
    except OSError as error:
        where = error.filename or tempfile.gettempdir()
        raise BuildFailed(
            f"{name} could not be compiled: {where}: {error.strerror or error}",
            hint="make room and access there, or set TMPDIR to another folder",
        ) from error


def _run(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    output: IO[bytes],
    stop: threading.Event,
) -> int | None:
    """Exit code of the compiler, None if it took too long; it ends with this process, whatever ends that."""
    if stop.is_set():
        raise CancelledError
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", guard.__name__, *command],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    assert process.stdin is not None
    limit = time.monotonic() + LIMIT
    try:
        while time.monotonic() < limit:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(INTERVAL)
            if stop.is_set():
                raise CancelledError
        return None
    finally:
        process.stdin.close()
        process.wait()


def _kept_log(folder: Path, command: Sequence[str], log: Path) -> str:
    """What the compiler wrote and said, kept as one file."""
    parts = [f"$ {' '.join(command)}"]
    for file in (LOG, OUTPUT):
        if (folder / file).exists():
            parts.append((folder / file).read_text(encoding="utf-8", errors="replace"))
    text = "\n".join(parts)
    log.write_text(text, encoding="utf-8")
    return text


def _exit(code: int | None) -> str | None:
    """What an exit code says, if it says that there is no result."""
    if code is None:
        return f"neuronx-cc was still at it after {LIMIT:.0f} s and was ended"
    if code < 0:
        return f"neuronx-cc was killed by signal {-code}"
    return f"neuronx-cc ended with exit code {code}" if code else None


def _result(neff: Path, lnc: int) -> str | None:
    """What is wrong with the result."""
    if not neff.is_file():
        return "neuronx-cc ended well and left no NEFF"
    return neff_problem(neff.read_bytes(), lnc)


def neff_problem(data: bytes, lnc: int) -> str | None:
    """Why bytes can't be the NEFF that was asked for."""
    try:
        header = read_header(data)
    except BadNeff as error:
        return f"the NEFF can't be used: {error}"
    if header.lnc != lnc:
        return f"the NEFF is for logical cores of {header.lnc} physical ones, {lnc} were asked for"
    return None
