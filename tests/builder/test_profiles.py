"""Sharding profiles: what each rank holds, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ltxbuild.errors import RecipeError
from ltxbuild.model.params import ParamSpec
from ltxbuild.plan.profiles import check_divides, mesh_shape, partition, shard_slices

SPEC = ParamSpec("blocks.to_q.weight", (3, 8, 6), ("layers", "heads", None), ("a", "b", "c"))


def test_ranks_cover_a_tensor_exactly_once() -> None:
    """The shards of a two-axis mesh tile the tensor without gap or overlap, row-major."""
    mesh, spec = {"x": 2, "y": 3}, ("x", None, "y")
    count = np.zeros((4, 5, 6), int)
    corners = []
    for rank in range(6):
        slices = shard_slices(count.shape, spec, mesh, rank)
        count[slices] += 1
        corners.append((slices[0].start, slices[2].start))
    assert (count == 1).all()
    assert corners == list(itertools.product((0, 2), (0, 2, 4)))


def test_partition_follows_the_rules() -> None:
    """Axes without a rule stay whole."""
    assert partition(SPEC, {"heads": "tp"}) == (None, "tp", None)
    assert partition(SPEC, {}) == (None, None, None)


def test_an_axis_that_does_not_divide_is_refused_with_the_choices() -> None:
    """The message names the parameter, the size and the degrees that work."""
    with pytest.raises(RecipeError) as caught:
        check_divides((SPEC,), {"heads": "tp"}, {"tp": 3})
    assert "blocks.to_q.weight has 8 along mesh axis 'tp', which 3 does not divide" in caught.value.message
    assert "1, 2, 4, 8" in str(caught.value.hint)


def test_the_single_profile_takes_one_device() -> None:
    """A degree without an axis to split over is an error, never ignored."""
    assert mesh_shape("single", 1) == {}
    with pytest.raises(RecipeError, match="uses one device"):
        mesh_shape("single", 2)
