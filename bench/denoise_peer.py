"""The denoising loops of a recipe by the official transformer in torch, with random weights.

python bench/denoise_peer.py RECIPE --attention pytorch --compile

Prints JSON: program to seconds of a step, of several calls; and the rate of a bare product, in operations per
second. Blocks are compiled one by one, so that all of them share the code of the first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/e2e")]

import torch  # noqa: E402
from denoise import ATTENTIONS, PRODUCT, programs, seconds, steps  # noqa: E402
from official import LTXModelConfigurator, X0Model  # noqa: E402
from reference import Reference, Size  # noqa: E402

from ltx_cache.home import home  # noqa: E402
from ltxbuild.recipe import Recipe, load  # noqa: E402
from ltxbuild.synthetic.shipped import shipped  # noqa: E402

SIDE = {"cpu": 2048, "cuda": 16384}
"""Of the matrices of the bare product."""


def transformer(config: dict[str, Any], dtype: torch.dtype, attention: str) -> Any:
    """The official module on the default device, its weights small random values, its tables in f32."""
    device = torch.get_default_device()
    with torch.device("meta"):
        parts = config["transformer"] | {"attention_type": attention}
        module = LTXModelConfigurator.from_config({**config, "transformer": parts})
    state = {
        name: torch.empty(
            value.shape, dtype=torch.float32 if "scale_shift_table" in name else dtype, device=device
        ).normal_(std=0.02)
        for name, value in module.state_dict().items()
    }
    module.load_state_dict(state, strict=True, assign=True)
    return X0Model(module.eval().requires_grad_(False)).eval()


def denoising(
    module: Any, recipe: Recipe, geometry: dict[str, Any], widths: tuple[int, int]
) -> Callable[[], None]:
    """All steps of a program, on random tokens and contexts."""
    cells = (geometry["height"], geometry["width"])
    size = Size(cells[0] * 32, cells[1] * 32, (geometry["frames"] - 1) * 8 + 1, geometry["fps"])
    dtype = getattr(torch, recipe.precision)
    start = tuple(torch.randn(1, shape.token_count(), 128, dtype=dtype) for shape in size.latents())
    contexts = tuple(torch.randn(1, geometry["length"], width, dtype=dtype) for width in widths)
    sigmas = tuple(1 - step / geometry["steps"] for step in range(geometry["steps"] + 1))
    holder = SimpleNamespace(transformer=module)
    holder._modality = Reference._modality.__get__(holder)

    def act() -> None:
        Reference.denoise(holder, contexts, start, sigmas, size)
        _wait()

    return act


def _wait() -> None:
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()


def product(side: int, dtype: torch.dtype) -> list[float]:
    """Operations per second of a product of square matrices, of several calls."""
    left, right = torch.randn(2, side, side, dtype=dtype)

    def act() -> None:
        left @ right
        _wait()

    return [2 * side**3 / took for took in seconds(act)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--attention", choices=ATTENTIONS, required=True)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    recipe = load(options.recipe)
    device, dtype = recipe.target.platform, getattr(torch, recipe.precision)
    if device not in SIDE:
        raise SystemExit(f"{recipe.name} is for {device}; the official code runs on {', '.join(SIDE)}")
    torch.set_default_device(device)
    config = shipped(recipe.checkpoint.config)["ltx"]
    module = transformer(config, dtype, options.attention)
    if options.compile:
        for block in module.velocity_model.transformer_blocks:
            block.compile()
    parts = config["transformer"]
    widths = (parts["cross_attention_dim"], parts["audio_cross_attention_dim"])
    figures = {PRODUCT: product(SIDE[device], dtype)}
    for name, item in programs(recipe, home()).items():
        act = denoising(module, recipe, dict(item.spec.geometry), widths)
        figures[name] = [each / steps(item) for each in seconds(act)]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
