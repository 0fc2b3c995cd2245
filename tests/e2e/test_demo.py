"""The demo model shows what the prompt says: every pipeline, with prompts that training never saw.

Colour, shape, direction and pitch are read off the finished files. The long tests print their shares.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from demo_faults import FAULTS, write
from demo_reading import Seen, load_frames
from demos import MODEL, RECIPES, Demo, Wish, held_out, seen, shares, wishes
from PIL import Image

from tools.train_demo import world

RIGHT = 0.9
"""Share of prompts that each of colour, shape, direction and pitch must be right in."""
FAULTY = 0.5
"""What the worst of the four shares stays below when something is wrong."""
LIMIT = 30_000_000
SPLIT = "target: {tensor_parallel: 4, profile: trn2}"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return Demo(tmp_path_factory.mktemp("demo") / "home")


def laid_over(base: str, devices: int, folder: Path) -> Path:
    """A shipped recipe, split over that many host devices."""
    path = RECIPES / f"{base}.yaml"
    if devices == 1:
        return path
    split = folder / f"{base}_split.yaml"
    split.write_text(f"extends: {path}\nname: {base}-split\n{SPLIT}\n", encoding="utf-8")
    return split


def first_frame(names: world.Names, folder: Path) -> Path:
    """An image file of where a scene begins."""
    path = folder / f"{seen(names).colour}-{seen(names).shape}-{seen(names).direction}.png"
    Image.fromarray(np.round(drawn(names) * 255).astype(np.uint8)).save(path)
    return path


def drawn(names: world.Names) -> np.ndarray:
    """The first frame of a scene, `[H, W, 3]`."""
    scene = world.Scene(names.colour, names.shape, names.direction, np.zeros(2, np.float32))
    return np.asarray(world.frames(scene, *world.STAGE_1)[0])


def test_model_is_small() -> None:
    assert sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file()) < LIMIT


def test_prompts_become_videos(demo: Demo, tmp_path: Path) -> None:
    wanted = wishes(12)
    bundle = demo.compile(RECIPES / "demo.yaml")
    found = shares(wanted, demo.make(bundle, wanted, tmp_path))
    assert np.mean(list(found.values())) >= 0.9, found


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("recipe", ["demo", "demo_two_stage"])
def test_all_held_out_prompts(demo: Demo, tmp_path: Path, recipe: str, devices: int) -> None:
    wanted = wishes()
    bundle = demo.compile(laid_over(recipe, devices, tmp_path))
    found = shares(wanted, demo.make(bundle, wanted, tmp_path / "out"))
    print(recipe, devices, found)
    assert min(found.values()) >= RIGHT, found


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 4])
def test_images_are_continued(demo: Demo, tmp_path: Path, devices: int) -> None:
    """The prompt doesn't say what is in the image; the video begins with it and goes on with it."""
    names = held_out()
    wanted = [
        Wish(world.caption(n._replace(colour=None, shape=None)), seen(n), first_frame(n, tmp_path))
        for n in names
    ]
    bundle = demo.compile(laid_over("demo_images", devices, tmp_path))
    found = shares(wanted, demo.make(bundle, wanted, tmp_path / "out"))
    print("demo_images", devices, found)
    assert min(found.values()) >= RIGHT, found
    given = np.stack([drawn(n) for n in names])
    for index in range(len(names)):
        apart = np.abs(load_frames(tmp_path / "out" / f"{index}.mp4")[0] - given).mean(axis=(1, 2, 3))
        assert apart[index] == apart.min()


@pytest.mark.slow
def test_negative_prompts_are_avoided(demo: Demo, tmp_path: Path) -> None:
    """The colour that the model likes best where it is free to choose becomes rare when it is unwanted."""
    bundle = demo.compile(RECIPES / "demo_guided.yaml")
    free = Seen(None, "circle", "left", "holds")
    prompt = "a circle moves left while the tone holds"

    def colours(negative: str) -> Counter[str | None]:
        folder = tmp_path / (negative or "plain").replace(" ", "-")
        return Counter(
            video.colour for video in demo.make(bundle, [Wish(prompt, free, negative=negative)] * 24, folder)
        )

    plain = colours("")
    ((best, before),) = plain.most_common(1)
    after = colours(f"a {best} circle")
    print(f"without a negative prompt {dict(plain)}, with 'a {best} circle' {dict(after)}")
    assert after[best] <= before / 4
    assert after[None] <= 2


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_show(demo: Demo, tmp_path: Path, fault: str) -> None:
    model = tmp_path / "model.safetensors"
    write(MODEL / "ltx-2.3-demo.safetensors", model, fault)
    wanted = wishes()
    bundle = demo.compile(RECIPES / "demo.yaml", "--checkpoint", str(model))
    found = shares(wanted, demo.make(bundle, wanted, tmp_path / "out"))
    print(fault, found)
    assert min(found.values()) < FAULTY, found
