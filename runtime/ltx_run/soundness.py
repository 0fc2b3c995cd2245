"""What a plan must be like whatever its programs are: steps that can be done, and that go together.

Example:
    >>> from ltx_run.plan import Permute
    >>> check([Permute(inputs=("a",), outputs=("b",), view=(2, 3), axes=(0, 2))])
    Traceback (most recent call last):
    ltx_run.errors.BundleInvalid: step permute can't be done: axes [0, 2] don't order those of [2, 3]
      build the bundle again: ltxbuild compile RECIPE
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import numpy as np

from ltx_run.errors import BundleInvalid
from ltx_run.guidance import LARGEST
from ltx_run.plan import (
    FINEST_RATE,
    Constant,
    DecodeTiles,
    LoadImage,
    Loop,
    Noise,
    Permute,
    PlaceImages,
    Run,
    Scales,
    Step,
    Tile,
    Tokenize,
    WriteVideo,
    frame_rate,
    tensors_in,
)

REBUILD = "build the bundle again: ltxbuild compile RECIPE"
AXES = ("time", "height", "width")
_INT32 = 2**31
_UINT64 = 2**64
_MANY = 1 << 20
"""More sigmas or tiles than that are in no call."""


def check(plan: Sequence[Step]) -> None:
    """Refuse a plan that no programs could do.

    Raises:
        BundleInvalid: Names the first fault.
    """
    for step in plan:
        for fault in _faults(step):
            raise BundleInvalid(f"step {kind(step)} can't be done: {fault}", hint=REBUILD)
    for fault in _conflicts(plan):
        raise BundleInvalid(f"the plan contradicts itself: {fault}", hint=REBUILD)


def kind(step: Step) -> str:
    """What manifests call a step."""
    return str(step.__struct_config__.tag)


def _faults(step: Step) -> Iterator[str]:
    """What is wrong with a step in itself; shapes and dtypes of what it makes are looked at elsewhere."""
    match step:
        case Tokenize(bos=bos, pad=pad):
            if not (0 <= bos < _INT32 and 0 <= pad < _INT32):
                yield f"bos {bos} and pad {pad} must be token ids"
        case Noise(draw=draw):
            if not 0 <= draw < _UINT64:
                yield f"draw {draw} is not between 0 and 2^64 - 1"
        case Constant(values=values):
            yield from _infinite(values)
        case Scales(names=names, values=values):
            if len(names) != len(values):
                yield f"it has {len(names)} names and {len(values)} values"
            yield from _infinite(values)
        case LoadImage(slot=slot):
            if slot < 0:
                yield f"there is no slot {slot}"
        case PlaceImages(every=every):
            if every < 1:
                yield f"frames can't be divided by {every}"
        case Loop(stride=stride):
            if not 1 <= stride <= _MANY:
                yield f"a call can't make {stride} steps"
        case Permute(inputs=inputs, view=view, axes=axes):
            if len(inputs) != 1:
                yield f"it reads {len(inputs)} tensors instead of one"
            if sorted(axes) != list(range(len(view))):
                yield f"axes {list(axes)} don't order those of {list(view)}"
        case DecodeTiles():
            yield from _untiled(step)
        case WriteVideo():
            yield from _unwritable(step)
        case Run():
            pass


def _infinite(values: Sequence[float]) -> Iterator[str]:
    yield from (f"{value} is no number in f32" for value in values if not abs(value) <= LARGEST)


def _unwritable(step: WriteVideo) -> Iterator[str]:
    if len(step.inputs) != 2:
        yield f"it reads {len(step.inputs)} tensors instead of frames and a waveform"
    if not (math.isfinite(step.fps) and 0 < frame_rate(step.fps) < _INT32 / FINEST_RATE):
        yield f"{step.fps} frames per second can't be written"
    if not 0 < step.sample_rate < _INT32:
        yield f"{step.sample_rate} samples per second can't be played"


def _untiled(step: DecodeTiles) -> Iterator[str]:
    """Tiles must come in the order of time, without gaps, and end where the video ends."""
    size = (step.frames, step.height, step.width)
    if len(step.inputs) != 1:
        yield f"it reads {len(step.inputs)} tensors instead of one"
    if not 1 <= step.together <= _MANY:
        yield f"a call can't decode {step.together} tiles"
    for number, tile in enumerate(step.tiles):
        yield from (f"tile {number} {fault}" for fault in _misplaced(tile, size))
    groups = [(span, list(tiles)) for span, tiles in groupby(step.tiles, _frames)]
    spans = [span for span, _ in groups]
    ordered = all(a[0] < b[0] <= a[1] < b[1] for a, b in pairwise(spans))
    if not spans or not ordered or (spans[0][0], spans[-1][1]) != (0, step.frames):
        yield "its tiles don't cover the video in the order of time"
    for (start, stop), tiles in groups:
        if not _cover(tiles, step.height, step.width):
            yield f"its tiles don't cover the video: not all of frames {start} to {stop - 1}"


def _misplaced(tile: Tile, size: tuple[int, int, int]) -> Iterator[str]:
    """What is wrong with the place of a tile in a video of that size."""
    places = zip(AXES, tile.start, tile.stop, tile.out_start, tile.out_stop, tile.ramps, size, strict=True)
    for axis, start, stop, first, last, ramps, whole in places:
        if not 0 <= start < stop:
            yield f"takes cells {start} to {stop} in {axis}"
        if not 0 <= first < last <= whole:
            yield f"makes {first} to {last} of {whole} in {axis}; they don't cover the video"
        if not all(0 <= ramp <= last - first for ramp in ramps):
            yield f"has ramps {list(ramps)} over {last - first} in {axis}"


def _frames(tile: Tile) -> tuple[int, int]:
    return tile.out_start[0], tile.out_stop[0]


def _cover(tiles: Sequence[Tile], height: int, width: int) -> bool:
    """Whether tiles that lie within a frame leave nothing of it out."""
    edges = [
        sorted({0, size, *(edge for tile in tiles for edge in (tile.out_start[axis], tile.out_stop[axis]))})
        for axis, size in ((1, height), (2, width))
    ]
    at = [{edge: index for index, edge in enumerate(each)} for each in edges]
    seen = np.zeros([len(each) - 1 for each in edges], np.bool_)
    for tile in tiles:
        (top, left), (bottom, right) = tile.out_start[1:], tile.out_stop[1:]
        seen[at[0][top] : at[0][bottom], at[1][left] : at[1][right]] = True
    return bool(seen.all())


def _conflicts(plan: Sequence[Step]) -> Iterator[str]:
    """How steps contradict each other; who reads what before it is made is looked at elsewhere."""
    videos = [step for step in plan if isinstance(step, WriteVideo)]
    if len(videos) > 1:
        yield f"it writes {len(videos)} videos"
    streams = _made_by(plan, DecodeTiles)
    for step in plan:
        for name in streams.intersection(tensors_in(step)):
            if not isinstance(step, WriteVideo):
                yield f"a step {kind(step)} reads the frames {name}, which are never there as a whole"
    yield from _images(plan)
    taken: dict[str, tuple[int, int]] = {}
    for step in plan:
        if isinstance(step, Tokenize):
            form = (step.length, step.bos)
            for name in step.inputs:
                if taken.setdefault(name, form) != form:
                    yield f"{name} is tokenized in two ways: (length, bos) {taken[name]} and {form}"


def _images(plan: Sequence[Step]) -> Iterator[str]:
    """Images are placed alike in all stages, and read by programs, whose results are zeros without them."""
    counts = {step.keyframes for step in plan if isinstance(step, PlaceImages)}
    images = _made_by(plan, LoadImage)
    if len(counts) > 1:
        yield f"it places {' and '.join(map(str, sorted(counts)))} keyframes"
    if images and not counts:
        yield f"it loads {', '.join(sorted(images))} and places no image"
    for step in plan:
        for name in images.intersection(tensors_in(step)):
            if not isinstance(step, Run):
                yield f"a step {kind(step)} reads the image {name}, which only programs can"


def _made_by(plan: Sequence[Step], sort: type[DecodeTiles | LoadImage]) -> frozenset[str]:
    return frozenset(name for step in plan if isinstance(step, sort) for name in step.outputs)
