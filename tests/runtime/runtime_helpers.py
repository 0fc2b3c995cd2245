"""What the runtime's tests share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from ltx_run import clients
from ltx_run.cli import cli
from ltx_run.console import guarded
from ltx_run.job import Batch, prepare
from ltx_run.lookup import find
from ltx_run.pjrt import Devices
from ltx_run.request import Request, check_requests

PROMPT = "a red ball rolls"


@dataclass
class Log:
    """An observer that remembers what it was told."""

    events: list[str] = field(default_factory=list)
    on_start: Callable[[str], None] = lambda label: None

    def start(self, label: str, total: int) -> None:
        self.on_start(label)
        self.events.append(f"{label} {total}")

    def advance(self) -> None:
        self.events.append("advance")

    def finish(self) -> None:
        self.events.append("finish")


def request(folder: Path, **changes: object) -> Request:
    """A request with defaults for tests; outputs go to `folder`."""
    fields: dict[str, object] = {"prompt": PROMPT, "output": folder / "out.mp4", "seed": 10}
    return Request(**{**fields, **changes})


def batch(bundle: Path, *requests: Request) -> Batch:
    """Checked requests for a bundle."""
    check_requests(requests)
    return prepare(requests, find(str(bundle)))


def job(bundle: Path, folder: Path, **changes: object) -> Batch:
    """A checked request for a bundle, as the batch of one."""
    return batch(bundle, request(folder, **changes))


class Accelerator(Devices):
    """The host's CPU, as devices with memory of their own as far as the runtime can tell."""

    def __init__(self, count: int = 1, memory: int = 1 << 30) -> None:
        super().__init__(clients.cpu(count))
        self.on_host = False
        self.memory = memory


class Inside:
    """Runs the command in this process, which is quicker."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        with pytest.raises(SystemExit) as caught:
            guarded(partial(cli, [str(a) for a in arguments], prog_name="ltx-run"))
        code = caught.value.code
        assert isinstance(code, int)
        return code, *self._capsys.readouterr()
