"""Guidance scales that the user changes, and the negative prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ltx_run import plan as steps
from ltx_run.errors import BadScale
from ltx_run.flow import needed
from ltx_run.guidance import parse, tensors
from ltx_run.interpreter import _windows
from ltx_run.prompts import read
from ltx_run.request import Request

PLAN: steps.Plan = (
    steps.Scales(outputs=("guidance.video",), names=("video.cfg", "video.stg"), values=(3.0, 0.7)),
    steps.Scales(
        outputs=("guidance.audio",),
        names=("audio.cfg", "audio.stg"),
        values=(7.0, 0.0),
        fixed=("audio.stg",),
    ),
    steps.WriteVideo(inputs=("guidance.video", "guidance.audio"), fps=24, sample_rate=48000),
)


def test_parse() -> None:
    """Names and numbers; the last one counts."""
    assert parse(["video.cfg=4", "audio.stg = 1e-1", "video.cfg=5"]) == {"video.cfg": 5, "audio.stg": 0.1}


@pytest.mark.parametrize("text", ["video.cfg", "video.cfg=", "video.cfg=x", ""])
def test_parse_errors(text: str) -> None:
    """What can't be read is shown as it was given."""
    with pytest.raises(BadScale, match=f"--guidance {text}"):
        parse([text])


def test_only_changed_scales_are_given() -> None:
    """A changed tensor keeps the other defaults, an unchanged one is left to the plan."""
    made = tensors({"video.cfg": 4.5}, PLAN)
    assert list(made) == ["guidance.video"]
    assert made["guidance.video"].dtype == np.float32
    assert made["guidance.video"].tolist() == [4.5, np.float32(0.7)]
    assert [step.outputs for step in needed(PLAN, made)] == [("guidance.audio",), ()]
    assert tensors({}, PLAN) == {}


@pytest.mark.parametrize(
    ("scales", "reason"),
    [
        ({"video.gfc": 4.0}, "no guidance scale video.gfc"),
        ({"audio.stg": 1.0}, "audio.stg can't be changed: it is 0 in the recipe"),
        ({"video.stg": float("inf")}, "video.stg=inf is not a finite number"),
        ({"video.cfg": 1e39}, "video.cfg=1e\\+39 is too large: .* at most 3.4e\\+38"),
        ({"video.cfg": -1e39}, "video.cfg=-1e\\+39 is too large"),
    ],
)
def test_scales_that_can_not_be(scales: dict[str, float], reason: str) -> None:
    """Unknown scales, those that no pass was compiled for, and what is no number are refused."""
    with pytest.raises(BadScale, match=reason):
        tensors(scales, PLAN)


def test_an_unknown_scale_lists_those_that_can_be_changed() -> None:
    """With their defaults; a plan without any says why."""
    with pytest.raises(BadScale) as raised:
        tensors({"cfg": 4.0}, PLAN)
    assert raised.value.hint == "it has: video.cfg=3, video.stg=0.7, audio.cfg=7"
    with pytest.raises(BadScale) as raised:
        tensors({"cfg": 4.0}, PLAN[2:])
    assert raised.value.hint == "its pipeline is not guided"


def test_calls_of_a_loop_cover_the_schedule() -> None:
    """Calls go on where the one before ended; the last sigma fills up a schedule that isn't a multiple."""
    sigmas = np.array([1, 0.9, 0.7, 0.4, 0], np.float32)
    ones = [(now.tolist(), then.tolist()) for now, then in _windows(sigmas, 1)]
    assert ones == [([a], [b]) for a, b in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True)]
    threes = [(now.tolist(), then.tolist()) for now, then in _windows(sigmas, 3)]
    assert threes == [([1], sigmas[1:4].tolist()), ([sigmas[3].item()], [0, 0, 0])]


def test_lines_of_a_file_lay_theirs_over_the_command_lines(tmp_path: Path) -> None:
    """Scales are merged by name, a negative prompt is replaced, an empty one counts."""
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        '{"prompt": "a"}\n{"prompt": "b", "negative_prompt": "", "guidance": {"video.cfg": 2}}\n',
        encoding="utf-8",
    )
    scales = {"video.cfg": 4.0, "audio.cfg": 5.0}
    first, second = read(file, tmp_path, Request("", Path(), 1, negative_prompt="blurry", scales=scales))
    assert (first.negative_prompt, dict(first.scales)) == ("blurry", scales)
    assert (second.negative_prompt, dict(second.scales)) == ("", {"video.cfg": 2.0, "audio.cfg": 5.0})
