"""Token ids of prompts that a plan tokenizes together or one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from ltx_run.errors import BadPrompt
from ltx_run.job import Job, _token_ids
from ltx_run.plan import Plan, Tokenize
from ltx_run.request import Request
from ltx_run.tokens import PromptTokenizer


class Letters:
    """A tokenizer whose ids are the codes of letters."""

    def ids(self, text: str, step: Tokenize, *, negative: bool = False) -> list[int]:
        """One id per letter, and one for the kind of prompt."""
        return [int(negative), *map(ord, text)]


def tokenize(*prompts: str, **defaults: str) -> Tokenize:
    """A step for some prompts."""
    return Tokenize(inputs=prompts, outputs=("t", "m"), length=8, bos=2, pad=0, defaults=defaults)


PLANS: dict[str, Plan] = {
    "together": (tokenize("prompt", "negative_prompt", negative_prompt="z"),),
    "one by one": (tokenize("prompt"), tokenize("negative_prompt", negative_prompt="z")),
}


def letters() -> PromptTokenizer:
    """The tokenizer above."""
    return cast(Any, Letters())


@pytest.mark.parametrize("name", PLANS)
def test_ids_are_the_same_however_prompts_are_grouped(name: str) -> None:
    """The prompt cache's key follows from the prompts, not from how many are encoded at once."""
    plan = PLANS[name]
    ids = _token_ids(Request("ab", Path("o.mp4"), 1), plan, letters)
    assert ids == ((0, 97, 98), (1, 122))
    job = Job(Request("ab", Path("o.mp4"), 1), plan, {}, ids)
    steps = [step for step in plan if isinstance(step, Tokenize)]
    assert [row for step in steps for row in job.prompts(step)] == [*ids]
    assert len(job.prompts(steps[-1])) == 2 // len(plan)


def test_a_prompt_that_no_step_reads_may_be_missing() -> None:
    """Where the contexts of the prompt are given, only the negative prompt is tokenized."""
    assert _token_ids(Request(None, Path("o.mp4"), 1), PLANS["one by one"][1:], letters) == ((1, 122),)
    with pytest.raises(BadPrompt, match="there is no prompt"):
        _token_ids(Request(None, Path("o.mp4"), 1), PLANS["one by one"], letters)
