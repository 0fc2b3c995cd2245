"""Images of a stage in the plan, and what the runtime makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltx_run import conditioning
from ltx_run import plan as steps
from ltx_run.conditioning import GivenImage
from ltx_run.flow import Signature
from ltxbuild.components import COMPONENTS
from ltxbuild.image_steps import image_steps
from ltxbuild.lower import lower
from ltxbuild.programs import traceable
from ltxbuild.shipped import shipped_config

LATENT = Signature((1, 128, 1, 2, 3), "bfloat16")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """An image of the stage's size."""
    path = tmp_path / "cat.png"
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(path)
    return path


def test_the_program_encodes_an_image() -> None:
    """The encoder takes the image as the step makes it, and makes a latent of one frame."""
    config = shipped_config("ltx-2.3-tiny")
    drafted = image_steps("stage1", 0, 64, 96, "bfloat16")
    program = traceable(drafted.program, config, "bfloat16", "plain")
    table = COMPONENTS["video_encoder"].table(config)
    lowered = lower(program, table, {}, {}, "bfloat16", unroll=False)
    load = drafted.steps[0]
    assert isinstance(load, steps.LoadImage)
    assert program.tensors[0].shape == (1, 3, 1, load.height, load.width)
    assert [Signature(out.shape, out.dtype) for out in lowered.outputs] == [LATENT]


def test_names_and_order() -> None:
    """A stage takes the slots' latents, then frames and shares; every image is encoded by one program."""
    drafted = image_steps("stage2", 1, 64, 96, "bfloat16")
    latents = ("image.0.latent.stage2", "image.1.latent.stage2")
    assert drafted.tensors == (*latents, "images.frame.stage2", "images.left.stage2")
    runs = [step for step in drafted.steps if isinstance(step, steps.Run)]
    assert [run.program for run in runs] == ["video_encoder.64x96"] * 2


def test_the_runtime_fills_them(picture: Path) -> None:
    """Everything that a stage takes is there, but for the latents of images that are."""
    drafted = image_steps("stage1", 2, 64, 96, "bfloat16", every=2)
    known = {name: LATENT for name in drafted.tensors if "latent" in name}
    made = conditioning.tensors([GivenImage(picture, 8, 0.8, 0)], drafted.steps, known, 17)
    assert made.keys() >= set(drafted.tensors) - {"image.1.latent.stage1"}
    assert made["images.frame.stage1"].tolist() == [-1, 4, -1]
    assert made["images.left.stage1"].tolist() == [1, np.float32(0.2), 1]
    assert made["image.1.stage1"].shape == (1, 3, 1, 64, 96)
    assert "image.1.latent.stage1" not in made
