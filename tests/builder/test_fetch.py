"""Checkpoints on the Hub: downloads through huggingface_hub, against a local server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import hubserver
import pytest

from ltxbuild.errors import CheckpointAbsent, CheckpointError
from ltxbuild.recipe import Recipe
from ltxbuild.weights.fetch import locate

LOCATE = """
import json, sys
from ltx_cache.errors import LtxError
from ltxbuild.weights.fetch import locate
from ltxbuild.recipe import Recipe
recipe = Recipe.model_validate(json.loads(sys.argv[1]))
try:
    found = locate(recipe, with_upsampler=False)
    names = sorted(path.name for path in found.text_encoder.iterdir())
    print(json.dumps({"model": found.model.read_text(), "gemma": names}))
except LtxError as error:
    print(json.dumps({"error": error.message}))
"""


def recipe(model: str | None, text_encoder: str | None) -> dict[str, object]:
    return {
        "name": "hub",
        "target": {"platform": "cpu"},
        "pipeline": "distilled_one_stage",
        "checkpoint": {"model": model, "text_encoder": text_encoder},
        "variants": {"default": {"height": 64, "width": 64, "frames": 9}},
    }


def located(folder: Path, data: dict[str, object]) -> dict[str, object]:
    """Locate a checkpoint in a process of its own, since the Hub's address is read once per process."""
    with hubserver.serve() as hub:
        hub.seed("org/ltx", {"model.safetensors": b"the weights"})
        gemma = {"model-00001.safetensors": b"a shard", "config.json": b"{}", "README.md": b"not needed"}
        hub.seed("org/gemma", gemma)
        env = hubserver.environment(hub, folder / "hf")
        done = subprocess.run(
            [sys.executable, "-c", LOCATE, json.dumps(data)],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_a_file_and_a_directory_are_downloaded(tmp_path: Path) -> None:
    """The single file comes alone; of the Gemma repository only what is read."""
    found = located(tmp_path, recipe("hf://org/ltx/model.safetensors", "hf://org/gemma"))
    assert found == {"model": "the weights", "gemma": ["config.json", "model-00001.safetensors"]}


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The reference stands in the message."""
    found = located(tmp_path, recipe("hf://org/ltx/other.safetensors", "hf://org/gemma"))
    assert "cannot download hf://org/ltx/other.safetensors" in str(found["error"])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "names no checkpoint.model"),
        ("hf://org/ltx", "names a repository, not a file"),
        ("hf://org", "not of the form"),
    ],
)
def test_references_are_checked_before_anything_is_asked(model: str | None, message: str) -> None:
    """A reference that can't be right is refused without the network."""
    with pytest.raises(CheckpointError, match=message):
        locate(Recipe.model_validate(recipe(model, "gemma")), with_upsampler=False)


def test_what_was_not_downloaded_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning downloads nothing: it says what is missing, and where it would come from."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    wanted = Recipe.model_validate(recipe("hf://org/ltx/never.safetensors", "hf://org/gemma-never"))
    with pytest.raises(CheckpointAbsent, match=r"hf://org/ltx/never\.safetensors is not on this"):
        locate(wanted, with_upsampler=False, download=False)
