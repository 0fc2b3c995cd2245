"""Plans that no programs could do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import toy

from ltx_run import plan as steps
from ltx_run import soundness
from ltx_run.errors import BundleInvalid
from ltx_run.plan import Plan, Step, Tile

IMAGE = steps.LoadImage(outputs=("pixels",), slot=0, height=16, width=32, dtype="float32")
PLACE = steps.PlaceImages(outputs=("place", "left"), keyframes=1)


def changed(kind: type, **fields: Any) -> Plan:
    """The toy's plan with fields of one step replaced."""
    return tuple(msgspec.structs.replace(s, **fields) if isinstance(s, kind) else s for s in toy.PLAN)


def tiled(change: Callable[[int, Tile], dict[str, Any] | None]) -> Plan:
    """The toy's plan with other tiles: changed in some fields, or left out where these are None."""
    changes = [(tile, change(number, tile)) for number, tile in enumerate(toy.tiles())]
    kept = [msgspec.structs.replace(tile, **fields) for tile, fields in changes if fields is not None]
    return changed(steps.DecodeTiles, tiles=tuple(kept))


def at(number: int, **fields: Any) -> Plan:
    """The toy's plan with fields of one tile replaced."""
    return tiled(lambda other, _: fields if other == number else {})


def refused(plan: Plan, message: str) -> None:
    """The plan is refused with words that match, and with advice."""
    with pytest.raises(BundleInvalid, match=message) as caught:
        soundness.check(plan)
    assert caught.value.hint == soundness.REBUILD


def test_sound_plan() -> None:
    """The toy's, also with images that a program reads."""
    encoder = steps.Run(program="encoder", inputs=("pixels",), outputs=("image",))
    soundness.check((PLACE, IMAGE, encoder, *toy.PLAN))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (changed(steps.Tokenize, bos=-1), "step tokenize can't be done: bos -1 and pad 0 must be token ids"),
        (changed(steps.Tokenize, pad=2**31), "must be token ids"),
        (changed(steps.Noise, draw=-1), "draw -1 is not between 0"),
        (changed(steps.Noise, draw=2**64), "is not between 0"),
        (changed(steps.Constant, values=(1.0, float("nan"))), "nan is no number in f32"),
        (changed(steps.Constant, values=(1e39, 0.0)), r"1e\+39 is no number in f32"),
        ((steps.Scales(outputs=("s",), names=("a",), values=(1.0, 2.0)),), "1 names and 2 values"),
        ((msgspec.structs.replace(IMAGE, slot=-1),), "there is no slot -1"),
        ((msgspec.structs.replace(PLACE, every=0),), "can't be divided by 0"),
        (changed(steps.Loop, stride=0), "a call can't make 0 steps"),
        (changed(steps.Loop, stride=10**40), "a call can't make"),
        (changed(steps.DecodeTiles, inputs=()), "reads 0 tensors instead of one"),
        (changed(steps.DecodeTiles, together=0), "a call can't decode 0 tiles"),
        (changed(steps.WriteVideo, inputs=("frames",)), "reads 1 tensors instead of frames and a waveform"),
        (changed(steps.WriteVideo, sample_rate=0), "0 samples per second"),
    ],
)
def test_steps_that_cannot_be_done(plan: Plan, message: str) -> None:
    """The message names the step and the values."""
    refused(plan, message)


@pytest.mark.parametrize("fps", [0, -24.0, float("nan"), float("inf"), 1e300, 1e-10])
def test_frame_rates_that_no_file_has(fps: float) -> None:
    """Files hold them as two integers of 32 bits."""
    refused(changed(steps.WriteVideo, fps=fps), "frames per second can't be written")


@pytest.mark.parametrize(
    ("fps", "fraction"),
    [(24.0, (24, 1)), (23.976, (2997, 125)), (24000 / 1001, (24000, 1001)), (1 / 3, (1, 3))],
)
def test_frame_rates_that_files_have(fps: float, fraction: tuple[int, int]) -> None:
    """Those of television, too, which are no decimal numbers."""
    soundness.check(changed(steps.WriteVideo, fps=fps))
    assert steps.frame_rate(fps).as_integer_ratio() == fraction


@pytest.mark.parametrize("axes", [(0, 1, 3), (0, 1), (0, 1, 1), (-1, 0, 1), (0, 1, 2, 3)])
def test_axes_that_are_no_order(axes: tuple[int, ...]) -> None:
    """Each axis of the view must be there once."""
    step = steps.Permute(inputs=("waveform",), outputs=("b",), view=(2, 3, 4), axes=axes)
    refused((*toy.PLAN[:-1], step), "don't order those of")
    refused((msgspec.structs.replace(step, axes=(0, 1, 2), inputs=()),), "reads 0 tensors")


@pytest.mark.parametrize(
    "plan",
    [
        tiled(lambda *_: None),
        tiled(lambda number, _: None if number == 0 else {}),
        tiled(lambda number, _: None if number == 3 else {}),
        tiled(lambda number, _: None if number < 2 else {}),
        tiled(lambda number, _: None if number > 1 else {}),
        at(1, out_start=(0, 0, 25), ramps=3 * ((0, 0),)),
        at(0, out_stop=(3, 8, 24)),
        at(0, out_start=(-1, 0, 0)),
        at(0, out_stop=(3, 16, 33)),
        at(0, out_stop=(0, 16, 24)),
        tiled(lambda n, t: {"out_start": (4, *t.out_start[1:]), "ramps": 3 * ((0, 0),)} if n > 1 else {}),
    ],
)
def test_tiles_that_do_not_cover_the_video(plan: Plan) -> None:
    """None at all, holes in a frame or in time, and tiles outside of it."""
    refused(plan, "cover the video")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (at(0, start=(-1, 0, 0)), "tile 0 takes cells -1 to 2 in time"),
        (at(2, stop=(1, 2, 3)), "tile 2 takes cells 1 to 1 in time"),
        (at(0, ramps=((4, 0), (0, 0), (0, 16))), r"tile 0 has ramps \[4, 0\] over 3 in time"),
        (at(1, ramps=((0, 0), (0, -1), (16, 0))), r"tile 1 has ramps \[0, -1\] over 16 in height"),
    ],
)
def test_tiles_that_cannot_be_blended(plan: Plan, message: str) -> None:
    """Ramps are no longer than the tile, and a tile has cells."""
    refused(plan, message)


@dataclass(frozen=True)
class Conflict:
    """Steps before the toy's plan, steps behind it, and what is said of them all."""

    message: str
    before: tuple[Step, ...] = ()
    behind: tuple[Step, ...] = ()


def permuted(name: str) -> Step:
    """A step that reads a tensor on the host."""
    return steps.Permute(inputs=(name,), outputs=("turned",), view=(1,), axes=(0,))


@pytest.mark.parametrize(
    "conflict",
    [
        Conflict("writes 2 videos", behind=toy.PLAN[-1:]),
        Conflict("a step permute reads the frames frames", behind=(permuted("frames"),)),
        Conflict("places 1 and 2 keyframes", (PLACE, msgspec.structs.replace(PLACE, keyframes=2))),
        Conflict("loads pixels and places no image", (IMAGE,)),
        Conflict("a step permute reads the image pixels", (PLACE, IMAGE, permuted("pixels"))),
        Conflict(
            r"prompt is tokenized in two ways: \(length, bos\) \(4, 1\) and \(8, 1\)",
            (steps.Tokenize(inputs=("prompt",), outputs=("a", "b"), length=4, bos=1, pad=0),),
        ),
    ],
    ids=lambda conflict: conflict.message,
)
def test_steps_that_do_not_go_together(conflict: Conflict) -> None:
    """Each of them could be done by itself."""
    refused((*conflict.before, *toy.PLAN, *conflict.behind), conflict.message)
