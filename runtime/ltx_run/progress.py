"""Progress bars and the closing table of `ltx-run`, on standard error."""

from __future__ import annotations

from textwrap import shorten
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ltx_run.console import human_bytes, talk_console
from ltx_run.report import Report


class Bars:
    """One bar per stage of a run."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=talk_console(),
        )
        self._task: TaskID | None = None

    def start(self, label: str, total: int) -> None:
        """A stage begins."""
        self._task = self._progress.add_task(label, total=total)

    def advance(self) -> None:
        """One part of the stage is done."""
        if self._task is not None:
            self._progress.advance(self._task)

    def finish(self) -> None:
        """The stage is done."""
        if self._task is not None:
            task = self._progress.tasks[self._task]
            self._progress.update(self._task, completed=task.total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._progress.stop()


class Silence:
    """No progress at all."""

    def start(self, label: str, total: int) -> None:
        """A stage begins."""

    def advance(self) -> None:
        """One part of the stage is done."""

    def finish(self) -> None:
        """The stage is done."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def show(report: Report, *, verbose: bool) -> None:
    """Print what each program cost, and what became of each of several videos.

    Args:
        report: What a run did.
        verbose: Add the compiler's figures.
    """
    table = Table()
    table.add_column("program")
    headings = ["calls", "compile s", "load s", "run s", "peak memory"]
    for heading in [*headings, *(["waited s", "arguments", "temp", "GFLOP/s"] if verbose else [])]:
        table.add_column(heading, justify="right")
    for p in report.programs:
        seconds = (p.compile_seconds, p.load_seconds, p.run_seconds)
        cells = [str(p.calls), *(f"{each:.2f}" for each in seconds), human_bytes(p.peak_bytes)]
        if verbose:
            speed = p.flops * p.calls / p.run_seconds / 1e9
            cells += [f"{p.wait_seconds:.2f}", human_bytes(p.memory.arguments), human_bytes(p.memory.temp)]
            cells.append(f"{speed:.1f}")
        table.add_row(p.name, *cells)
    talk_console().print(table)
    if len(report.videos) > 1:
        talk_console().print(_videos(report))


def _videos(report: Report) -> Table:
    """What became of each job."""
    table = Table()
    for heading in ("video", "seed", "prompt", "result"):
        table.add_column(heading)
    for video in report.videos:
        prompt = shorten(video.prompt or "", 48, placeholder="…")
        result = f"{video.frames} frames" if video.error is None else f"failed: {video.error}"
        table.add_row(*(Text(cell) for cell in (video.output, str(video.seed), prompt, result)))
    return table
