"""Progress of a build on standard error: a bar per weight set and per running compile."""

from __future__ import annotations

from types import TracebackType

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from ltx_run.console import talk_console


class BuildProgress:
    """Live bars; finished tasks leave one line each. Safe to use from several threads."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=talk_console(),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> BuildProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start(self, task: str, total: int | None) -> None:
        """A task begins."""
        self._tasks[task] = self._progress.add_task(task, total=total)

    def advance(self, task: str, amount: int) -> None:
        """Bytes of a task are done."""
        self._progress.advance(self._tasks[task], amount)

    def finish(self, task: str, detail: str) -> None:
        """A task is complete."""
        self._progress.remove_task(self._tasks.pop(task))
        self._progress.console.print(f"  {task}: {detail}", highlight=False)
