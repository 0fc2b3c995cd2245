"""Images asked for, and what programs are given for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltx_run import plan as steps
from ltx_run.conditioning import GivenImage, parse, tensors
from ltx_run.errors import BadImage
from ltx_run.flow import Signature, needed
from ltx_run.image import fitted, load

FRAMES = 17
LATENT = Signature((1, 8, 1, 2, 3), "bfloat16")


def plan(keyframes: int, every: int = 1) -> steps.Plan:
    """A stage with a slot for the first frame and `keyframes` slots for later ones."""
    names = [f"image.{slot}" for slot in range(keyframes + 1)]
    loads = [
        steps.LoadImage(outputs=(name,), slot=slot, height=64, width=96, dtype="float32")
        for slot, name in enumerate(names)
    ]
    encodes = [steps.Run(program="encoder", inputs=(n,), outputs=(f"{n}.latent",)) for n in names]
    place = steps.PlaceImages(outputs=("frame", "left"), keyframes=keyframes, every=every)
    latents = tuple(f"{name}.latent" for name in names)
    stage = steps.Run(program="denoise", inputs=(*latents, "frame", "left"), outputs=("video", "audio"))
    write = steps.WriteVideo(inputs=("video", "audio"), fps=24, sample_rate=48000)
    return (*loads, *encodes, place, stage, write)


def signatures(keyframes: int) -> dict[str, Signature]:
    """What the encoder makes."""
    return {f"image.{slot}.latent": LATENT for slot in range(keyframes + 1)}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """An image."""
    path = tmp_path / "cat.png"
    values = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(values).save(path)
    return path


def test_parse(picture: Path) -> None:
    """Fields are optional from the right."""
    assert parse(str(picture)) == GivenImage(picture, 0, 1.0, 33)
    assert parse(f"{picture}:8") == GivenImage(picture, 8, 1.0, 33)
    assert parse(f"{picture}:8:0.8") == GivenImage(picture, 8, 0.8, 33)
    assert parse(f"{picture}:8:.5:0") == GivenImage(picture, 8, 0.5, 0)


def test_parse_paths_with_colons(picture: Path) -> None:
    """The longest text that names a file is the path."""
    odd = picture.with_name("12:30:00")
    odd.write_bytes(picture.read_bytes())
    assert parse(str(odd)) == GivenImage(odd)
    assert parse(f"{odd}:16:1:20") == GivenImage(odd, 16, 1.0, 20)
    longer = picture.with_name("cat.png:3")
    longer.write_bytes(picture.read_bytes())
    assert parse(f"{picture}:3") == GivenImage(longer)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (":x", "frame 'x' is not a whole number"),
        (":1.5", "frame '1.5' is not a whole number"),
        (":-1", "frame -1 is negative"),
        (":1:strong", "strength 'strong' is not a number"),
        (":1:1.01", "strength 1.01 is not between 0 and 1"),
        (":1:nan", "strength nan is not between 0 and 1"),
        (":1:1:52", "CRF 52 is not between 0 and 51"),
        (":1:1:", "CRF '' is not a whole number"),
        (":1:1:33:0", "there is no image file '.*cat.png:1'"),
    ],
)
def test_parse_errors(picture: Path, fields: str, reason: str) -> None:
    """A wrong field is named with its value."""
    with pytest.raises(BadImage, match=reason):
        parse(f"{picture}{fields}")


@pytest.mark.parametrize("text", ["", "dog.png", "dog.png:8:0.8", ":0"])
def test_no_such_file(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that isn't there is named without the fields."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadImage) as raised:
        parse(text)
    assert raised.value.message == f"there is no image file '{text.split(':')[0]}'"


def test_slots(picture: Path) -> None:
    """The first frame has slot 0, later ones follow in the order given, empty ones are marked."""
    images = [GivenImage(picture, 16, 0.8), GivenImage(picture, 0, 0.5), GivenImage(picture, 3)]
    made = tensors(images, plan(3), signatures(3), FRAMES)
    assert made["frame"].dtype == np.int32
    assert made["frame"].tolist() == [0, 16, 3, -1]
    assert made["left"].dtype == np.float32
    assert made["left"].tolist() == [0.5, np.float32(0.2), 0, 1]
    want = fitted(load(picture, 33), height=64, width=96, dtype="float32")
    assert all((made[f"image.{slot}"] == want).all() for slot in (0, 1, 2))


def test_empty_slots_need_no_encoder(picture: Path) -> None:
    """Latents of empty slots are zeros, and the steps that would make them are left out."""
    made = tensors([GivenImage(picture, 8)], plan(1), signatures(1), FRAMES)
    assert made["image.0.latent"].shape == LATENT.shape
    assert made["image.0.latent"].dtype.name == LATENT.dtype
    assert not made["image.0.latent"].any()
    left = [step for step in needed(plan(1), made) if isinstance(step, steps.Run)]
    assert [step.outputs[0] for step in left] == ["image.1.latent", "video"]
    none = needed(plan(1), tensors([], plan(1), signatures(1), FRAMES))
    assert [type(step).__name__ for step in none] == ["Run", "WriteVideo"]


def test_frames_of_a_stage_with_fewer(picture: Path) -> None:
    """A stage with half the frames has the image at half the frame number."""
    images = [GivenImage(picture, 9), GivenImage(picture)]
    made = tensors(images, plan(2, every=2), signatures(2), FRAMES)
    assert made["frame"].tolist() == [0, 4, -1]


def test_a_variant_without_slots(picture: Path) -> None:
    """Images for a variant that takes none are refused; without any there is nothing to do."""
    bare = tuple(step for step in plan(0) if not isinstance(step, steps.PlaceImages))
    assert tensors([], bare, {}, FRAMES) == {}
    with pytest.raises(BadImage, match="takes no images") as raised:
        tensors([GivenImage(picture)], bare, {}, FRAMES)
    assert "keyframes: 0" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([17], "frame 17 is out of range; the video has frames 0 to 16"),
        ([4, 4], "both for frame 4"),
        ([0, 0], "both for frame 0"),
        ([0, 4, 8], "2 images are for frames after the first; the variant was compiled for 1"),
    ],
)
def test_images_that_have_no_place(picture: Path, frames: list[int], reason: str) -> None:
    """Frames out of range, taken frames and too many keyframes are refused."""
    with pytest.raises(BadImage, match=reason):
        tensors([GivenImage(picture, frame) for frame in frames], plan(1), signatures(1), FRAMES)


def test_every_file_is_read(picture: Path) -> None:
    """A file that is no image is refused here, before anything is loaded."""
    letter = picture.with_name("letter.txt")
    letter.write_text("dear")
    with pytest.raises(BadImage, match="is not an image"):
        tensors([GivenImage(picture), GivenImage(letter, 4)], plan(1), signatures(1), FRAMES)
