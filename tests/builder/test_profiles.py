"""Sharding profiles: how components are spread, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from ltxbuild.errors import RecipeError
from ltxbuild.model.params import ParamSpec
from ltxbuild.plan.placement import Placement, place
from ltxbuild.plan.profiles import (
    BY_HEADS,
    BY_HEADS_AND_TOKENS,
    ONE,
    PROFILES,
    check_degrees,
    check_divides,
    partition,
)
from ltxbuild.plan.programspec import ProgramSpec
from ltxbuild.recipe import Recipe
from ltxbuild.synthetic.shipped import shipped_config

SPEC = ParamSpec("blocks.to_q.weight", (3, 8, 6), ("layers", "heads", None), ("a", "b", "c"))
GATE = ParamSpec("blocks.gate.weight", (3, 4, 6), ("layers", "heads", None), ("d", "e", "f"))
FULL = shipped_config("ltx-2.3-22b")


def placed(kind: str, component: str | None, geometry: dict[str, Any], **target: Any) -> Placement:
    """Placement of one program of the full model on CPU devices; its weights are of no concern."""
    recipe = Recipe.model_validate(
        {
            "name": "law",
            "target": {"platform": "cpu", **target},
            "pipeline": "distilled_one_stage",
            "variants": {"default": {"height": 64, "width": 64, "frames": 9}},
        }
    )
    return place(ProgramSpec(kind, kind, component, tuple(geometry.items())), recipe, FULL, ())


def test_partition_follows_the_rules() -> None:
    """Axes without a rule stay whole."""
    assert partition(SPEC, {"heads": "tp"}) == (None, "tp", None)
    assert partition(SPEC, {}) == (None, None, None)


def test_a_layout_uses_all_devices() -> None:
    """Devices along an axis that a layout lacks go to its last one, so that components share the machine."""
    degrees = {"cp": 4, "tp": 2}
    assert BY_HEADS_AND_TOKENS.mesh(degrees) == {"cp": 4, "tp": 2}
    assert BY_HEADS.mesh(degrees) == {"tp": 8}
    assert ONE.mesh(degrees) == {}


def test_components_have_layouts_of_their_own() -> None:
    """Trillium splits video tokens of the transformer only; a tile of the video decoder stays whole."""
    target = {"profile": "trillium", "tensor_parallel": 2, "context_parallel": 4}
    grid = {"frames": 16, "height": 16, "width": 24}
    assert placed("denoise", "transformer", grid, **target).mesh == {"cp": 4, "tp": 2}
    assert placed("text_encoder", "text_encoder", {}, **target).mesh == {"tp": 8}
    assert placed("video_decoder", "video_decoder", grid, **target).parts("tiles") == 8
    assert placed("upsampler", "upsampler", grid, **target).mesh == {}
    assert placed("unpatchify", None, grid, **target).devices == 1


def test_an_axis_that_does_not_divide_is_refused_with_the_choices() -> None:
    """The message names the parameter and the size; the hint lists degrees that divide all of them."""
    with pytest.raises(RecipeError) as caught:
        check_divides((SPEC, GATE), {}, {"heads": "tp"}, {"tp": 3})
    assert "blocks.to_q.weight has 8 heads along mesh axis 'tp', which 3 devices" in caught.value.message
    assert str(caught.value.hint).endswith("of 1, 2, 4")


def test_tokens_that_do_not_divide_are_refused() -> None:
    """What is split need not show in a weight: the tokens of a keyframe count as well."""
    grid = {"frames": 2, "height": 3, "width": 5, "keyframes": 1}
    target = {"profile": "trillium", "tensor_parallel": 2, "context_parallel": 4}
    with pytest.raises(RecipeError, match="the program has 45 tokens along mesh axis 'cp'") as caught:
        placed("denoise", "transformer", grid, **target)
    assert "target.context_parallel of 1, 3, 5, 9, 15, 45" in str(caught.value.hint)


def test_no_device_holds_part_of_a_key_head() -> None:
    """Queries and key widths would divide by 16; the text encoder's 8 key heads don't."""
    with pytest.raises(RecipeError, match="the program has 8 heads"):
        placed("text_encoder", "text_encoder", {}, profile="hopper", tensor_parallel=16)


def test_a_degree_without_an_axis_is_refused() -> None:
    """It is never ignored; the profiles that have the axis are listed."""
    check_degrees("single", {"cp": 1, "tp": 1})
    with pytest.raises(RecipeError, match="uses one device"):
        check_degrees("single", {"cp": 1, "tp": 2})
    with pytest.raises(RecipeError, match=r"context_parallel is 2, but profile 'hopper'") as caught:
        check_degrees("hopper", {"cp": 2, "tp": 1})
    assert "trillium" in str(caught.value.hint)


def test_every_rule_names_an_axis_of_its_mesh() -> None:
    """Profiles are data that people edit: a slip is found here and not by a compiler."""
    for profile in PROFILES.values():
        for layout in profile.layouts.values():
            assert set(layout.rules.values()) <= set(layout.mesh_axes)
