"""Images on the command line and in files of prompts, with the toy bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import toy
from PIL import Image
from runtime_helpers import PROMPT, request

from ltx_run import plan as steps
from ltx_run.bundle import Bundle, decode
from ltx_run.cli import cli
from ltx_run.conditioning import GivenImage
from ltx_run.console import guarded
from ltx_run.errors import BadRequests
from ltx_run.lookup import MANIFEST
from ltx_run.programs import Programs
from ltx_run.prompts import read
from ltx_run.tensors import worth_keeping


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """An image."""
    path = tmp_path / "cat.png"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def slots(toy_bundle: Path, edit: Callable[..., Path]) -> Path:
    """The toy with a variant that takes an image for the first frame and one for a later frame."""
    manifest: Bundle = decode((toy_bundle / MANIFEST).read_bytes())
    place = steps.PlaceImages(outputs=("images.frame", "images.left"), keyframes=1)
    variant = msgspec.structs.replace(manifest.variants["default"], plan=(place, *toy.PLAN))
    return edit(variants={"default": variant})


def ltx_run(*arguments: object) -> int:
    """Exit code of the command."""
    with pytest.raises(SystemExit) as caught:
        guarded(partial(cli, [str(a) for a in arguments], prog_name="ltx-run"))
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_images_go_with_the_run(slots: Path, picture: Path, tmp_path: Path) -> None:
    """Images in the right places are taken."""
    images = ["--image", picture, "--image", f"{picture}:4:0.8:0"]
    assert ltx_run(slots, "-p", PROMPT, "-o", tmp_path / "out.mp4", "-q", *images) == 0


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (["letter.txt"], "letter.txt is not an image"),
        (["dog.png:4"], "there is no image file 'dog.png'"),
        (["cat.png:5"], "frame 5 is out of range; the video has frames 0 to 4"),
        (["cat.png:-1"], "frame -1 is negative"),
        (["cat.png:0:1.5"], "strength 1.5 is not between 0 and 1"),
        (["cat.png:0:1:99"], "CRF 99 is not between 0 and 51"),
        (["cat.png:2", "cat.png:3"], "`keyframes: 1`"),
        (["cat.png:2", "cat.png:2"], "both for frame 2"),
    ],
)
def test_bad_images_stop_before_anything_is_loaded(
    slots: Path,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    images: list[str],
    words: str,
) -> None:
    """One message, exit code 2, nothing loaded, nothing written."""
    monkeypatch.chdir(picture.parent)
    monkeypatch.setattr(Programs, "__init__", lambda *_: pytest.fail("something was loaded"))
    Path("letter.txt").write_text("dear cat")
    given = [word for image in images for word in ("--image", image)]
    assert ltx_run(slots, "-p", PROMPT, "-o", "out.mp4", *given) == 2
    assert words in capsys.readouterr().err
    assert not Path("out.mp4").exists()


def test_a_variant_without_slots_says_so(
    bundles: dict[int, Path], picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image for a bundle that takes none is refused with what would help."""
    assert ltx_run(bundles[1], "-p", PROMPT, "-o", tmp_path / "out.mp4", "--image", picture) == 2
    told = capsys.readouterr().err
    assert "takes no images" in told
    assert "`keyframes: 0`" in told


def test_lines_have_images_of_their_own(picture: Path, tmp_path: Path) -> None:
    """A line names one image, several or none, which says what the command line says."""
    lines = [{"image": f"{picture}:2"}, {"image": [str(picture), f"{picture}:4:0.5"]}, {}, {"image": []}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": PROMPT, **line}) for line in lines))
    defaults = request(tmp_path, images=(GivenImage(picture, 3),))
    found = [[(i.frame, i.strength) for i in r.images] for r in read(path, tmp_path, defaults)]
    assert found == [[(2, 1)], [(0, 1), (4, 0.5)], [(3, 1)], []]


def test_bad_images_of_lines_are_named(tmp_path: Path) -> None:
    """The line is named with what is wrong with its image."""
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": PROMPT, "image": "dog.png"}))
    with pytest.raises(BadRequests, match="line 1: there is no image file 'dog"):
        read(path, tmp_path, request(tmp_path))


def test_latents_of_images_are_kept() -> None:
    """Every image's latent of every stage is worth keeping, the image itself is not."""
    made = ["image.0.latent.stage1", "image.12.latent.stage2", "image.0.stage1", "images.left.stage1"]
    assert worth_keeping(made) - worth_keeping([]) == {made[0], made[1]}
