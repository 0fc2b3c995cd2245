"""Every file tells how it was made, and no more is made than a file takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from runtime_helpers import PROMPT, Inside, Log, job

from ltx_run import __version__, run
from ltx_run.errors import NoProvenance
from ltx_run.lookup import find
from ltx_run.png import png
from ltx_run.provenance import read
from ltx_run.safetensors import SafetensorsFile
from ltx_run.tensors import write


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.wav", "a.MP4", "frames/"])
def test_files_tell_how_they_were_made(
    inside: Inside, bundles: dict[int, Path], tmp_path: Path, name: str
) -> None:
    """Prompt, seed, variant, bundle, its digest and the version come back from each kind of file."""
    prompt = 'a "ä" 球'
    sheet = tmp_path / "sheet.png"
    code, _, errors = inside(
        bundles[1], "-p", prompt, "-o", f"{tmp_path}/{name}", "--seed", 7, "--contact-sheet", sheet, "-q"
    )
    assert code == 0, errors
    for path in (tmp_path / name, sheet):
        code, output, errors = inside("--inspect", path)
        assert (code, errors) == (0, "")
        assert json.loads(output) == {
            "prompt": prompt,
            "seed": 7,
            "variant": "default",
            "bundle": "toy",
            "digest": find(str(bundles[1])).digest,
            "ltx-run": __version__,
        }


def test_given_tensors_are_told(bundles: dict[int, Path], tmp_path: Path) -> None:
    """A video of given latents has no prompt, and names the file that they came from."""
    run.run(job(bundles[1], tmp_path, tensors_out=tmp_path / "all.safetensors"), Log())
    made = SafetensorsFile(tmp_path / "all.safetensors")
    latents = [name for name in made.header.entries if name.startswith("latent")]
    write(tmp_path / "in.safetensors", {name: made.view(name) for name in latents})
    run.run(job(bundles[1], tmp_path, prompt=None, tensors_in=tmp_path / "in.safetensors"), Log())
    record = read(tmp_path / "out.mp4")
    assert record["tensors_in"] == "in.safetensors"
    assert "prompt" not in record


def test_files_of_others(inside: Inside, tmp_path: Path) -> None:
    """A file without such a record is one clear message, whatever it is."""
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    (tmp_path / "empty").mkdir()
    for name, words in (("text.mp4", "can't be read as a video"), ("cut.png", "doesn't say how it was made")):
        with pytest.raises(NoProvenance, match=words):
            read(tmp_path / name)
        assert inside("--inspect", tmp_path / name)[0] == 2
    assert inside("--inspect", tmp_path / "empty")[0] == 1
    deep = '{"digest":' + "[" * 100_000
    (tmp_path / "deep.png").write_bytes(png(np.zeros((2, 2, 3), np.uint8), {"comment": deep}))
    assert inside("--inspect", tmp_path / "deep.png")[0] == 2
    assert inside("--inspect", tmp_path / "none")[0] == 2


@pytest.mark.parametrize(
    ("options", "left_out"),
    [
        ({"output": "a.wav"}, {"decoder"}),
        ({"output": "a.wav", "contact_sheet": "a.png"}, set()),
        ({"output": "a.mp4", "audio": False}, {"vocoder"}),
        ({"output": "a.gif"}, {"vocoder"}),
        ({"output": "a", "directory": True}, {"vocoder"}),
    ],
)
def test_what_no_file_takes_is_not_made(
    bundles: dict[int, Path], tmp_path: Path, options: dict[str, object], left_out: set[str]
) -> None:
    """Programs for pictures, or for sound, are not loaded when nothing is written of it."""
    paths = {name: tmp_path / value if isinstance(value, str) else value for name, value in options.items()}
    report = run.run(job(bundles[1], tmp_path, **paths), Log())
    assert {"decoder", "vocoder"} - {program.name for program in report.programs} == left_out
    written = {value.name for value in paths.values() if isinstance(value, Path)}
    assert {path.name for path in tmp_path.iterdir()} == written


def test_nothing_to_write(inside: Inside, bundles: dict[int, Path], tmp_path: Path) -> None:
    """Sound without sound, and a contact sheet that is no PNG file, are refused."""
    out = ("-p", PROMPT, "-o", tmp_path / "a.wav")
    code, _, errors = inside(bundles[1], *out, "--no-audio")
    assert (code, "would be empty" in errors) == (2, True)
    code, _, errors = inside(bundles[1], *out, "--contact-sheet", tmp_path / "a.jpg")
    assert (code, "a contact sheet is a .png file" in errors) == (2, True)
    assert list(tmp_path.iterdir()) == []
