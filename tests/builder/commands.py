"""Running the builder's command line in this process, which is quicker than starting one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from ltx_run.console import guarded
from ltxbuild.cli.main import cli


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """A function that runs `ltxbuild` with its arguments."""

    def run(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as caught:
            guarded(partial(cli, list(arguments)))
        said = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Done(caught.value.code, said.out, said.err)

    return run
