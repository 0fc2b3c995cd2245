"""Images in plans, and what the runtime makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from ltx_run import conditioning
from ltx_run import plan as steps
from ltx_run.conditioning import GivenImage
from ltx_run.flow import Signature
from ltxbuild.compiler.lower import lower
from ltxbuild.components import COMPONENTS
from ltxbuild.plan.pipeline import blueprint
from ltxbuild.plan.programspec import Forms
from ltxbuild.programs import traceable
from ltxbuild.recipe import Recipe
from ltxbuild.synthetic.shipped import shipped_config


def plan(keyframes: int | None, **fields: Any) -> steps.Plan:
    """Plan of a two-stage recipe."""
    size = {"height": 192, "width": 384, "frames": 33, "fps": 48}
    data = {"name": "i", "target": {"platform": "cpu"}, "pipeline": "distilled_two_stage", **fields}
    recipe = Recipe.model_validate({**data, "variants": {"default": {**size, "keyframes": keyframes}}})
    drawn = blueprint(recipe, shipped_config("ltx-2.3-tiny", recipe.upsample))
    return drawn.variants[0].plan


def kinds(plan: steps.Plan) -> list[str]:
    """Kinds of the programs in order."""
    return [step.program.split(".")[0] for step in plan if isinstance(step, steps.Run)]


def test_encoders_come_before_denoising() -> None:
    """Images of both stages are encoded in a row: the encoder's weights are gone before the model's come."""
    found = kinds(plan(1))
    assert found[:8] == ["text_encoder", "connectors", *["video_encoder"] * 4, "denoise", "upsampler"]
    assert "video_encoder" not in found[6:]


def test_without_keyframes_there_are_no_images() -> None:
    """A variant that says nothing of keyframes has programs for text alone; zero takes a first frame."""
    assert "video_encoder" not in kinds(plan(None))
    assert kinds(plan(0)).count("video_encoder") == 2


@pytest.mark.parametrize("loop", ["fused", "stepwise"])
def test_stages_take_their_images(loop: str) -> None:
    """Latents of a stage's resolution, frames and shares go to the programs of that stage."""
    names = {
        stage: {f"image.{slot}.latent.{stage}" for slot in (0, 1)}
        | {f"images.frame.{stage}", f"images.left.{stage}"}
        for stage in ("stage1", "stage2")
    }
    found = plan(1, loop=loop)
    for stage, wanted in names.items():
        takers = [s for s in found if isinstance(s, steps.Run | steps.Loop) and wanted <= set(s.inputs)]
        assert len(takers) == (1 if loop == "fused" else 2), stage


def test_the_encoders_program() -> None:
    """The program takes an image as the step makes it, and makes a latent of one frame."""
    config = shipped_config("ltx-2.3-tiny")
    recipe = {"name": "i", "target": {"platform": "cpu"}, "pipeline": "distilled_one_stage"}
    variant = {"height": 64, "width": 96, "frames": 9, "keyframes": 0}
    drawn = blueprint(Recipe.model_validate({**recipe, "variants": {"default": variant}}), config)
    program = traceable(drawn.programs["video_encoder.64x96"], config, "bfloat16", Forms())
    assert program.tensors[0].shape == (1, 3, 1, 64, 96)
    lowered = lower(
        program,
        COMPONENTS["video_encoder"].table(config),
        {},
        {},
        jax.devices()[:1],
        "bfloat16",
        layers="scan",
    )
    assert [(out.shape, out.dtype) for out in lowered.outputs] == [((1, 128, 1, 2, 3), "bfloat16")]


def test_the_runtime_fills_the_slots(tmp_path: Path) -> None:
    """Before a temporal upsampler an image is at half its frame number; both stages share the rest."""
    path = tmp_path / "cat.png"
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(path)
    found = plan(1, upsample="temporal_x2")
    latents = [s.outputs[0] for s in found if isinstance(s, steps.Run) and "encoder" in s.program]
    known = {name: Signature((1, 128, 1, 6, 12), "bfloat16") for name in latents}
    made = conditioning.tensors([GivenImage(path, 9, 0.8, 0)], found, known, 33)
    assert made["images.frame.stage1"].tolist() == [-1, 4]
    assert made["images.frame.stage2"].tolist() == [-1, 9]
    for stage in ("stage1", "stage2"):
        assert made[f"images.left.{stage}"].tolist() == [1, np.float32(0.2)]
        assert made[f"image.1.pixels.{stage}"].shape == (1, 3, 1, 192, 384)
        assert not made[f"image.0.latent.{stage}"].any()
