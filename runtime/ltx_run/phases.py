"""What a run does when, as named slices of a trace: compile, load, run, decode, write.

Outside `traced` naming a phase costs nothing. The slices lie in the trace of jaxlib's own profiler, beside
what XLA's threads and the devices do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

_annotate: Callable[[str], AbstractContextManager[object]] | None = None


def phase(kind: str, what: str) -> AbstractContextManager[object]:
    """Name what the calling thread does inside.

    Args:
        kind: `compile`, `load`, `run`, `decode` or `write`.
        what: The program or file.
    """
    return nullcontext() if _annotate is None else _annotate(f"{kind} {what}")


@contextmanager
def traced(folder: Path | None) -> Iterator[None]:
    """Trace what runs inside.

    The folder gets `plugins/profile/TIME/HOST.xplane.pb` for TensorBoard and XProf, and beside it
    `HOST.trace.json.gz` for Perfetto and chrome://tracing; also when the run fails.

    Args:
        folder: Where the trace goes; it is made. None to trace nothing.

    Raises:
        OSError: The folder can't be written.
    """
    global _annotate
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    from ltx_run.clients import _profiler

    options = _profiler.ProfileOptions()
    options.python_tracer_level = 0  # every Python call would be a slice
    session = _profiler.ProfilerSession(options)
    _annotate = _profiler.TraceMe
    try:
        yield
    finally:
        _annotate = None
        session.stop_and_export(str(folder))
