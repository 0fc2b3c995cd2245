"""A thread for each rank: the ranks of a program must load it, and execute it, at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from queue import SimpleQueue
from typing import Any, TypeVar

from ltx_run.errors import ProgramFailed

T = TypeVar("T")

GRACE = 10.0
"""Seconds that the other ranks have when one has failed: they may be waiting for it inside the runtime."""
STUCK = "end the process; if the device is held even then (neuron-ls), reload the driver or reboot"

_Task = tuple[Callable[[], Any], "Future[Any]"]


class Ranks:
    """Threads that live as long as the process; a call that doesn't return can only be abandoned."""

    def __init__(self, count: int) -> None:
        """Start the threads."""
        self._queues: list[SimpleQueue[_Task]] = [SimpleQueue() for _ in range(count)]
        self._stuck: ProgramFailed | None = None
        for rank, queue in enumerate(self._queues):
            threading.Thread(target=_serve, args=(queue,), name=f"rank {rank}", daemon=True).start()

    @property
    def stuck(self) -> bool:
        """Whether a call was abandoned: then the runtime may block others too."""
        return self._stuck is not None

    def each(self, function: Callable[[int], T], limit: float, what: str) -> list[T]:
        """Call a function with each rank, all at once, and wait for the results.

        Args:
            function: Takes the rank.
            limit: Seconds.
            what: What it does, as the object of "can't".

        Raises:
            ProgramFailed: A rank gave no answer in time, now or before.
            LtxError: What the first rank to fail raised.
        """
        if self._stuck is not None:
            raise self._stuck
        together = threading.Barrier(len(self._queues))
        futures: list[Future[T]] = [Future() for _ in self._queues]

        def start(rank: int) -> Callable[[], T]:
            def task() -> T:
                together.wait()
                return function(rank)

            return task

        for rank, (queue, future) in enumerate(zip(self._queues, futures, strict=True)):
            queue.put((start(rank), future))
        done, waiting = wait(futures, limit, FIRST_EXCEPTION)
        failed = next((error for future in done if (error := future.exception())), None)
        if failed and waiting:
            _, waiting = wait(waiting, GRACE)
        if waiting:
            late = ", ".join(str(rank) for rank, future in enumerate(futures) if future in waiting)
            message = f"can't {what}: no answer from rank {late} in {limit:g} s"
            self._stuck = ProgramFailed(message, hint=STUCK)
        if failed or self._stuck:
            raise failed or self._stuck  # type: ignore[misc]
        return [future.result() for future in futures]


def _serve(queue: SimpleQueue[_Task]) -> None:
    while True:
        task, future = queue.get()
        try:
            future.set_result(task())
        except BaseException as error:
            future.set_exception(error)
