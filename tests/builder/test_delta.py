"""What LoRAs add to a weight: the official rounding, bit by bit."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracles import import_oracles

import_oracles()

from ltx_core.loader.fuse_loras import apply_loras  # noqa: E402
from ltx_core.loader.primitives import LoraStateDictWithStrength, StateDict  # noqa: E402

from ltxbuild.weights import delta as module  # noqa: E402
from ltxbuild.weights.delta import delta, merged  # noqa: E402

Array = NDArray[Any]
OUT, IN = 48, 40


def to_torch(array: Array) -> torch.Tensor:
    """The same bits as a tensor."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def to_numpy(tensor: torch.Tensor) -> Array:
    """The same bits as an array."""
    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def official(weight: Array, pairs: list[tuple[Array, Array]], strengths: list[float]) -> Array:
    """The weight as the official loader merges it."""
    state = {"x.weight": to_torch(weight)}
    loras = [
        LoraStateDictWithStrength(
            StateDict(
                {"x.lora_A.weight": to_torch(down), "x.lora_B.weight": to_torch(up)},
                torch.device("cpu"),
                0,
                set(),
            ),
            strength,
        )
        for (down, up), strength in zip(pairs, strengths, strict=True)
    ]
    merged_state = apply_loras(StateDict(state, torch.device("cpu"), 0, set()), loras, torch.bfloat16)
    return to_numpy(merged_state.sd["x.weight"])


def random_weight(seed: int = 0) -> Array:
    """A bf16 weight of the size of a LoRA's part."""
    return np.random.default_rng(seed).standard_normal((OUT, IN)).astype(ml_dtypes.bfloat16)


def coarse_pairs(count: int, dtype: str, ranks: tuple[int, ...] = (16, 3, 7)) -> list[tuple[Array, Array]]:
    """Factors on a coarse grid: products add up exactly in f32, so that no order of summation matters."""
    random = np.random.default_rng(1)
    return [
        (
            (random.integers(-7, 8, (rank, IN)) / 8).astype(dtype),
            (random.integers(-7, 8, (OUT, rank)) / 16).astype(dtype),
        )
        for rank in ranks[:count]
    ]


@pytest.mark.parametrize(
    ("dtype", "strengths"),
    [
        ("bfloat16", [1.0]),
        ("bfloat16", [0.7]),
        ("bfloat16", [0.7, -1.3, 0.35]),
        ("float16", [0.7, 1.0]),
        ("float32", [0.5, -0.75]),
    ],
)
def test_bf16_is_bit_equal_to_the_official_merge(dtype: str, strengths: list[float]) -> None:
    """Strength, product, sum and weight are rounded where the official loader rounds them."""
    weight, pairs = random_weight(), coarse_pairs(len(strengths), dtype)
    deltas = [delta(a, b, s, "bfloat16") for (a, b), s in zip(pairs, strengths, strict=True)]
    result = merged(weight, deltas, "bfloat16")
    np.testing.assert_array_equal(result.view(np.uint16), official(weight, pairs, strengths).view(np.uint16))


def test_any_values_differ_in_the_last_bit_at_most() -> None:
    """Where f32 sums depend on their order, hardly a weight rounds the other way, and none goes further."""
    random = np.random.default_rng(2)
    weight = random.standard_normal((512, 512)).astype(ml_dtypes.bfloat16)
    down, up = (random.standard_normal(s).astype(ml_dtypes.bfloat16) / 8 for s in ((128, 512), (512, 128)))
    ours = merged(weight, [delta(down, up, 0.8, "bfloat16")], "bfloat16").view(np.int16).astype(np.int32)
    theirs = official(weight, [(down, up)], [0.8]).view(np.int16).astype(np.int32)
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 1e-3


def test_float32_rounds_nothing_to_bf16() -> None:
    """A recipe in f32 gets the merge to f32 accuracy, from bf16 files too."""
    weight, pairs = random_weight(), coarse_pairs(2, "bfloat16")
    result = merged(weight, [delta(*pair, 0.7, "float32") for pair in pairs], "float32")
    exact = weight.astype(np.float64)
    for down, up in pairs:
        exact += 0.7 * up.astype(np.float64) @ down.astype(np.float64)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, exact, rtol=0, atol=2e-6)


def test_strength_zero_leaves_the_weight() -> None:
    """Nothing is added, whatever the factors are."""
    weight = random_weight()
    nothing = [delta(*pair, 0.0, "bfloat16") for pair in coarse_pairs(2, "bfloat16")]
    np.testing.assert_array_equal(merged(weight, nothing, "bfloat16"), weight)


def test_merging_by_blocks_is_merging_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of rows that don't divide the weight give the same bits."""
    weight = random_weight()
    deltas = [delta(*pair, 0.7, "bfloat16") for pair in coarse_pairs(2, "bfloat16")]
    whole = merged(weight, deltas, "bfloat16")
    monkeypatch.setattr(module, "BLOCK", 5 * IN)
    np.testing.assert_array_equal(merged(weight, deltas, "bfloat16"), whole)
