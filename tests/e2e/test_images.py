"""Videos from images, against the official modules: from files on the command line to the latents.

The model's part is tested more widely in `tests/model/test_conditioning.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import diffusion
import pictures
import pytest
import torch
from pictures import Picture, paint
from systems import BF16, F32, PROMPT, SIZE, Official, Run, System, cosine, values
from test_parity import (
    MAX_RELATIVE,
    MIN_COSINE,
    assert_alike,
    assert_as_exact,
    assert_equal_in_f32,
    relative,
)

pytestmark = pytest.mark.xdist_group("e2e")

KEYFRAMES = 1
FIRST, LATER = 0, 1
"""Slots."""


@pytest.fixture(scope="module", autouse=True)
def _own_timesteps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        prepare = diffusion.prepare_with_own_timesteps
        patch.setattr(diffusion.MultiModalTransformerArgsPreprocessor, "prepare", prepare)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Picture, Picture]:
    """An image at the first frame and a weaker one at a later frame."""
    folder = tmp_path_factory.mktemp("images")
    first, later = (paint(folder / f"{seed}.png", seed) for seed in (1, 2))
    return Picture(first, 0, 1.0), Picture(later, 9, 0.8)


def _variants(precision: str) -> str:
    size = f"height: {SIZE.height}, width: {SIZE.width}, frames: {SIZE.frames}, fps: 24"
    return f"precision: {precision}\nvariants: {{default: {{{size}, keyframes: {KEYFRAMES}}}}}\n"


@pytest.fixture(scope="module")
def in_f32(system: System) -> str:
    """Both stages in f32, with slots for images."""
    return system.compile(system.extend("cpu_tiny_two_stage.yaml", "e2e-images-f32", _variants("float32")))


@pytest.fixture(scope="module")
def in_bf16(system: System) -> str:
    """Both stages in bf16, with slots for images."""
    return system.compile(system.extend("cpu_tiny_two_stage.yaml", "e2e-images-bf16", _variants("bfloat16")))


def _run(system: System, bundle: str, dtype: torch.dtype, *used: Picture) -> Run:
    given = pictures.noise(SIZE, KEYFRAMES)
    start = {name: tensor.to(dtype) for name, tensor in given.items()}
    return system.run(bundle, start, images=[picture.option for picture in used])


def _official(
    official: Official, dtype: torch.dtype, files: tuple[Picture, Picture]
) -> dict[str, torch.Tensor]:
    return pictures.run(official.system(dtype), PROMPT, pictures.noise(SIZE, KEYFRAMES), files, SIZE)


def _programs(run: Run) -> list[str]:
    return [program["name"] for program in run.report["programs"]]


def test_a_first_frame_and_a_keyframe_in_f32(
    system: System, official: Official, in_f32: str, files: tuple[Picture, Picture]
) -> None:
    """From image files to the video in f32, all that is left is the order of sums."""
    ours = _run(system, in_f32, F32, *files).tensors
    theirs = _official(official, F32, files)
    assert ours.keys() == theirs.keys()
    assert_equal_in_f32(ours, theirs)


def test_what_is_said_of_an_image_matters(official: Official, files: tuple[Picture, Picture]) -> None:
    """The comparison would show another frame, another strength or another file."""
    first, later = files
    theirs = _official(official, F32, files)["latent.stage1.video"]
    others = (
        (first, later._replace(frame=10)),
        (first, later._replace(strength=0.7)),
        (first._replace(strength=0.9), later),
        (first, later._replace(path=first.path)),
    )
    for other in others:
        changed = _official(official, F32, other)["latent.stage1.video"]
        assert relative(changed, theirs) > 30 * MAX_RELATIVE


def test_a_first_frame_and_a_keyframe_in_bf16(
    system: System, official: Official, in_bf16: str, files: tuple[Picture, Picture]
) -> None:
    """In bf16 every tensor is the official one but for rounding."""
    ours = _run(system, in_bf16, BF16, *files).tensors
    theirs = _official(official, BF16, files)
    assert_alike(ours, theirs, MIN_COSINE)
    assert_as_exact(ours, theirs, _official(official, F32, files))


def test_without_images_it_is_a_video_from_text(system: System, in_f32: str, float32: str) -> None:
    """A bundle that could take images makes what one without slots makes, and loads no encoder."""
    given = pictures.noise(SIZE, KEYFRAMES)
    cut = dict(given)
    for stage, divisor in (("stage1", 2), ("stage2", 1)):
        tokens = SIZE.latents(divisor)[0].token_count()
        cut[f"noise.{stage}.video"] = given[f"noise.{stage}.video"][:, :tokens]
    ours = system.run(in_f32, {name: tensor.to(F32) for name, tensor in given.items()})
    plain = system.run(float32, {name: tensor.to(F32) for name, tensor in cut.items()})
    assert_equal_in_f32(ours.tensors, plain.tensors)
    assert not [name for name in _programs(ours) if name.startswith("video_encoder")]


def test_images_change_what_they_should(system: System, in_f32: str, files: tuple[Picture, Picture]) -> None:
    """A full-strength first frame is there in the result; an empty slot gives no latent."""
    ours = _run(system, in_f32, F32, files[FIRST])
    assert {name for name in ours.tensors if name.startswith("image.")} == {
        "image.0.latent.stage1",
        "image.0.latent.stage2",
    }
    first = ours.tensors["latent.stage2.video"][:, :, :1]
    assert cosine(first, ours.tensors["image.0.latent.stage2"]) > 1 - MAX_RELATIVE
    other = _run(system, in_f32, F32, files[LATER]).tensors["latent.stage2.video"]
    difference = values(other) - values(ours.tensors["latent.stage2.video"])
    assert difference.abs().max() > 0.1
    assert _programs(ours).count("video_encoder.64x96") == 1


def test_the_same_image_twice_is_the_same_video(
    system: System, in_f32: str, files: tuple[Picture, Picture], tmp_path: Path
) -> None:
    """Another name for the same file changes nothing."""
    copy = files[FIRST]._replace(path=tmp_path / "copy:of:it.png")
    copy.path.write_bytes(files[FIRST].path.read_bytes())
    ours, again = (_run(system, in_f32, F32, picture).tensors for picture in (files[FIRST], copy))
    assert all(torch.equal(ours[name], again[name]) for name in ours)
