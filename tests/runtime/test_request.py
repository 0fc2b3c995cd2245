"""What is said about requests without the bundle: outputs that destroy each other, and what is no text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from runtime_helpers import Inside, request

from ltx_run.errors import BadPrompt, BadRequests, OutputError
from ltx_run.request import check_requests


def paths(folder: Path, **names: str) -> dict[str, object]:
    """Fields of a request, with paths in a folder; an output that ends in a slash is a directory."""
    made: dict[str, object] = {field: folder / name for field, name in names.items()}
    return {**made, "directory": names.get("output", "").endswith("/")}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"output": "a.mp4", "tensors_out": "a.mp4"}, "the video and the tensors both go to"),
        ({"output": "a.mp4", "tensors_out": "new/../a.mp4"}, "the video and the tensors both go to"),
        ({"output": "a.mp4", "tensors_out": "link.mp4"}, "the video and the tensors both go to"),
        ({"contact_sheet": "a.png", "tensors_out": "a.png"}, "the contact sheet and the tensors both go to"),
        ({"output": "frames/", "contact_sheet": "frames/sheet.png"}, "the contact sheet can't go to"),
        ({"output": "frames", "contact_sheet": "frames/sheet.png"}, "the contact sheet can't go to"),
        ({"output": "frames/", "tensors_out": "frames/a.safetensors"}, "the tensors can't go to"),
        ({"output": "again/", "contact_sheet": "frames/sheet.png"}, "the contact sheet can't go to"),
    ],
)
def test_outputs_of_one_request_that_would_destroy_each_other(
    tmp_path: Path, names: dict[str, str], words: str
) -> None:
    """One path for two of them, and a place in a directory of frames, are refused, also by way of links."""
    (tmp_path / "frames").mkdir()
    (tmp_path / "again").symlink_to("frames")
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    with pytest.raises(OutputError, match=words):
        check_requests([request(tmp_path, **paths(tmp_path, **names))])


def test_outputs_of_two_requests_that_would_destroy_each_other(tmp_path: Path) -> None:
    """The same holds for a file of prompts, with both lines named."""
    (tmp_path / "x").mkdir()

    def refused(first: dict[str, str], second: dict[str, str], words: str) -> None:
        numbered = enumerate((first, second), 1)
        made = [request(tmp_path, where=f"line {n}", **paths(tmp_path, **names)) for n, names in numbered]
        for order in (made, made[::-1]):
            with pytest.raises(OutputError, match=words):
                check_requests(order)

    inside = "the video of line 2 can't go to .*: the video of line 1 replaces all of"
    refused({"output": "x/"}, {"output": "x/y.mp4"}, inside)
    refused({"output": "x/"}, {"output": "x/y/"}, inside)
    one = "the video of line . and the contact sheet of line . both go to|the contact sheet of line 2 and"
    refused({"output": "y/"}, {"output": "a.mp4", "contact_sheet": "y"}, "a contact sheet is a .png file")
    refused({"output": "y.png/"}, {"output": "a.mp4", "contact_sheet": "y.png"}, one)


def test_outputs_beside_each_other(tmp_path: Path) -> None:
    """Files beside a directory of frames, and names that begin alike, are no matter."""
    (tmp_path / "frames").mkdir()
    names = {"output": "frames/", "contact_sheet": "frames.png", "tensors_out": "frames.safetensors"}
    check_requests([request(tmp_path, **paths(tmp_path, **names))])


def test_processes_that_write_nothing_check_no_paths(tmp_path: Path) -> None:
    """What another process writes may lead elsewhere there."""
    check_requests([request(tmp_path, output=tmp_path / "no" / "a.mp4", writes=False)] * 2)


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    """A null or too many letters are found with the other mistakes of a file of prompts."""
    names = ("a\0.mp4", "a" * 300 + ".mp4", "fine.mp4")
    requests = [request(tmp_path, output=tmp_path / name, where=f"line {n}") for n, name in enumerate(names)]
    with pytest.raises(BadRequests, match=r"(?s)line 0: .*null byte.*line 1: .*too long"):
        check_requests(requests)


@pytest.mark.parametrize("option", ["--prompt", "--negative-prompt"])
def test_prompts_that_are_no_text(inside: Inside, bundles: dict[int, Path], option: str) -> None:
    """Bytes that are no UTF-8 are refused as such, before a tokenizer stumbles over them."""
    bad = os.fsdecode(b"caf\xe9")
    options = ("--prompt", "rain", "-o", "a.mp4", option, bad)
    code, _, errors = inside(bundles[1], *options)
    assert (code, "prompt is not UTF-8 from character 4 on" in errors) == (2, True)


def test_an_empty_prompt(tmp_path: Path) -> None:
    """White space alone is no prompt."""
    with pytest.raises(BadPrompt, match="is empty"):
        check_requests([request(tmp_path, prompt=" ")])
