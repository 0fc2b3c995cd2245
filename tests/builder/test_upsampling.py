"""Two stages of different size: what the first one computes, and whether the upsampler fits between."""

from __future__ import annotations

from typing import Any

import pytest

from ltx_run import plan as steps
from ltxbuild.errors import RecipeError
from ltxbuild.model.config import UpsamplerKind
from ltxbuild.model.upsampler import SPREAD
from ltxbuild.plan.latent_size import first_stage, latent_size
from ltxbuild.plan.pipeline import blueprint
from ltxbuild.plan.programspec import Forms
from ltxbuild.programs import traceable
from ltxbuild.recipe import Recipe
from ltxbuild.synthetic.shipped import shipped_config
from ltxbuild.upsampling import UPSAMPLINGS

KINDS = list(UPSAMPLINGS)


def recipe(kind: UpsamplerKind, **size: Any) -> Recipe:
    """A two-stage recipe whose size suits every kind."""
    variant = {"height": 192, "width": 384, "frames": 33, "fps": 48, **size}
    return Recipe.model_validate(
        {
            "name": "two",
            "target": {"platform": "cpu"},
            "pipeline": "distilled_two_stage",
            "upsample": kind,
            "variants": {"default": variant},
        }
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_stage_upsampled_is_the_second(kind: UpsamplerKind) -> None:
    """The upsampler's program turns exactly the first stage's latent into the second's."""
    config, variant = shipped_config("ltx-2.3-tiny", kind), recipe(kind).variants["default"]
    full = latent_size(variant, config)
    small = first_stage(variant, config, UPSAMPLINGS[kind])
    sizes = {
        "spatial_x2": (5, 3, 6, 48),
        "spatial_x1.5": (5, 4, 8, 48),
        "temporal_x2": (3, 6, 12, 24),
    }
    assert (small.frames, small.height, small.width, small.fps) == sizes[kind]
    assert small.audio == full.audio
    spread = SPREAD[kind]
    frames = small.frames * spread[0] - (spread[0] > 1)
    kept = 2 if kind == "spatial_x1.5" else 1
    across = (small.height * spread[1] // kept, small.width * spread[2] // kept)
    assert (frames, *across) == (full.frames, full.height, full.width)


@pytest.mark.parametrize("kind", KINDS)
def test_programs_fit_together(kind: UpsamplerKind) -> None:
    """The plan gives the upsampler and the second stage what their programs take."""
    config = shipped_config("ltx-2.3-tiny", kind)
    drawn = blueprint(recipe(kind), config)
    runs = {s.program: s for v in drawn.variants for s in v.plan if isinstance(s, steps.Run)}
    specs = {spec.kind: spec for spec in drawn.programs.values()}
    up = traceable(specs["upsampler"], config, "bfloat16", Forms())
    after = traceable(specs["denoise_from"], config, "bfloat16", Forms())
    full = latent_size(recipe(kind).variants["default"], config)
    assert runs[specs["upsampler"].id].outputs == (runs[specs["denoise_from"].id].inputs[0],)
    assert after.tensors[0].shape == (1, 128, full.frames, full.height, full.width)
    assert up.tensors[0].shape[2:] != after.tensors[0].shape[2:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_refused(kind: UpsamplerKind) -> None:
    """Recipe and file must say the same."""
    other = KINDS[KINDS.index(kind) - 1]
    with pytest.raises(RecipeError, match=f"upsample: {kind}, its upsampler file is a {other} one") as raised:
        blueprint(recipe(kind), shipped_config("ltx-2.3-tiny", other))
    assert f"upsample: {other}" in str(raised.value.hint)
