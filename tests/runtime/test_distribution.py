"""Parts of arrays per rank."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltx_run.distribution import Distribution

AXES = [None, "a", "b"]


def cut(whole: np.ndarray, spec: list[str | None], mesh: dict[str, int], rank: int) -> np.ndarray:
    """What a rank holds, cut by numpy: its place in the mesh as numpy numbers the cells of an array."""
    place = dict(zip(mesh, np.unravel_index(rank, tuple(mesh.values())), strict=True))
    for axis, name in enumerate(spec):
        if name is not None:
            whole = np.split(whole, mesh[name], axis)[place[name]]
    return whole


@given(st.permutations(AXES), st.lists(st.integers(1, 3), min_size=3, max_size=3))
def test_split_and_join_are_inverse(spec: list[str | None], factors: list[int]) -> None:
    """Parts joined again are the array, and each is what numpy cuts out of it for that rank."""
    mesh = {"a": 2, "b": 3}
    shape = tuple(factor * (mesh[axis] if axis else 1) for factor, axis in zip(factors, spec, strict=True))
    whole = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    distribution = Distribution.of(shape, "float32", spec, mesh)
    parts = distribution.split(whole)
    assert np.array_equal(distribution.join(parts), whole)
    assert {part.shape for part in parts} == {distribution.part_shape}
    assert distribution.counts == tuple(mesh[axis] if axis else 1 for axis in spec)
    for rank, part in enumerate(parts):
        assert np.array_equal(part, cut(whole, spec, mesh, rank))


def test_replicated_join_copies_nothing() -> None:
    """Where every rank holds the whole, the first part is the array."""
    distribution = Distribution.of((4,), "float32", (None,), {"tp": 4})
    parts = distribution.split(np.arange(4, dtype=np.float32))
    assert distribution.replicated
    assert distribution.join(parts) is parts[0]


@pytest.mark.parametrize(
    ("shape", "dtype", "spec"),
    [
        ((6,), "float32", ("tp",)),
        ((8,), "float32", ("dp",)),
        ((8,), "float32", ()),
        ((8,), "complex64", (None,)),
    ],
)
def test_impossible_layouts_are_refused(
    shape: tuple[int, ...], dtype: str, spec: tuple[str | None, ...]
) -> None:
    """An axis that doesn't divide, an unknown mesh axis or dtype, or a spec of another rank is an error."""
    with pytest.raises(ValueError, match="can't be"):
        Distribution.of(shape, dtype, spec, {"tp": 4})
