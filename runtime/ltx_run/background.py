"""Encoding beside other work: pictures wait in a queue of limited length for a thread that encodes them."""

from __future__ import annotations

from queue import Queue
from threading import Thread

from ltx_run.encoders import Encoder
from ltx_run.phases import phase
from ltx_run.pictures import Frame, Picture


class Background:
    """An encoder whose pictures are appended by another thread; an error there is raised by the next call."""

    def __init__(self, encoder: Encoder, depth: int) -> None:
        """Start the thread.

        Args:
            encoder: Does the work; nobody else may use it meanwhile.
            depth: Pictures that may wait.
        """
        self._encoder = encoder
        self._queue: Queue[Picture | None] = Queue(depth)
        self._error: BaseException | None = None
        self._thread = Thread(target=self._work, name="encode", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (picture := self._queue.get()) is not None:
            if self._error is None:
                try:
                    with phase("write", "frame"):
                        self._encoder.add(picture)
                except BaseException as error:
                    self._error = error

    def picture(self, frame: Frame) -> Picture:
        """The frame as the encoder takes it."""
        return self._encoder.picture(frame)

    def add(self, picture: Picture) -> None:
        """Append a picture; waits while too many others do."""
        if self._error is not None:
            raise self._error
        self._queue.put(picture)

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def finish(self) -> None:
        """Wait for the pictures, then write what is left."""
        self._stop()
        if self._error is not None:
            raise self._error
        self._encoder.finish()

    def close(self) -> None:
        """Drop the pictures that wait, and let go of everything."""
        self._error = self._error or RuntimeError("closed")
        self._stop()
        self._encoder.close()
