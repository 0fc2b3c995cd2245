"""The steps a plan is made of, and what follows from them: liveness of tensors, programs and weights.

A plan is a straight list of steps over named tensors. It is data: the builder writes it, the runtime
interprets it, and neither needs the model to do so.

Example:
    >>> import msgspec
    >>> msgspec.json.decode(b'{"step":"run","program":"upsampler","in":["latent"],"out":["up"]}', type=Step)
    Run(program='upsampler', inputs=('latent',), outputs=('up',))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import msgspec


class _Step(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="step",
    rename={
        "inputs": "in",
        "outputs": "out",
    },
):
    """Fields `inputs` and `outputs` name tensors; on the wire they are `in` and `out`."""


class Tokenize(_Step, tag="tokenize", frozen=True):
    """Prompts to token ids int32 `[N, length]` and validity masks bool `[N, length]`, padded on the left.

    `defaults` are the texts of prompts that the user may leave out, by name.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    length: int
    bos: int
    pad: int
    defaults: dict[str, str] = {}


class Noise(_Step, tag="noise", frozen=True):
    """Standard normal noise, counter-based; `draw` numbers the independent streams of a seed."""

    outputs: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    draw: int
    inputs: tuple[str, ...] = ()


class Constant(_Step, tag="constant", frozen=True):
    """A small one-dimensional tensor written into the plan, such as a sigma schedule."""

    outputs: tuple[str, ...]
    values: tuple[float, ...]
    dtype: str
    inputs: tuple[str, ...] = ()


class Scales(_Step, tag="scales", frozen=True):
    """Numbers that the user may change, as f32 `[len(names)]`.

    Those named in `fixed` can't be changed: the programs were compiled without what they act on.
    """

    outputs: tuple[str, ...]
    names: tuple[str, ...]
    values: tuple[float, ...]
    fixed: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()


class LoadImage(_Step, tag="load_image", frozen=True):
    """The image of a slot as `[1, 3, 1, height, width]` in [-1, 1].

    Slot 0 is the first frame's. Done before anything is loaded, like `PlaceImages`, and left out together
    with its readers when the slot is empty.
    """

    outputs: tuple[str, ...]
    slot: int
    height: int
    width: int
    dtype: str
    inputs: tuple[str, ...] = ()


class PlaceImages(_Step, tag="place_images", frozen=True):
    """Where the images are: per slot the frame (int32) and the share of noise that is left there (f32).

    There is a slot for the first frame and one for each of the `keyframes` at later frames. Frames of the
    video are divided by `every` (for a stage that has fewer frames); they are negative in an empty slot.
    """

    outputs: tuple[str, ...]
    keyframes: int
    every: int = 1
    inputs: tuple[str, ...] = ()


class Run(_Step, tag="run", frozen=True):
    """Execute a program; inputs and outputs in the order of the program's tensor inputs and outputs."""

    program: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Loop(_Step, tag="loop", frozen=True):
    """Execute a program along a schedule, `stride` steps in a call.

    The first `len(outputs)` inputs are carried from call to call; the program is called with
    `(*carry, sigma, sigmas_next, *rest)` (f32 `[1]` and `[stride]`) and returns the new carry. At the end of
    a schedule that `stride` doesn't divide, the last sigma is repeated.
    """

    program: str
    sigmas: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stride: int = 1


class Permute(_Step, tag="permute", frozen=True):
    """View a tensor as `view`, then permute its axes (on the host)."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    view: tuple[int, ...]
    axes: tuple[int, ...]


class Tile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tile of a tiled decode; triples run over (time, height, width).

    Attributes:
        program: Program that decodes a latent tile of this size.
        start: First latent cell.
        stop: One past the last latent cell.
        out_start: First output frame, row, column.
        out_stop: One past the last output frame, row, column.
        ramps: Per axis the lengths of the rising and the falling blend ramp, in output units.
    """

    program: str
    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    out_start: tuple[int, int, int]
    out_stop: tuple[int, int, int]
    ramps: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


class DecodeTiles(_Step, tag="decode_tiles", frozen=True):
    """Decode a latent `[1, C, F, h, w]` in tiles and blend: a stream of frames `[*, H, W, 3]`, in order.

    Each program takes as many tiles as are decoded `together`, `[together, C, t, h, w]`, and returns
    `[together, frames, H, W, 3]`, black 0 and white 1, not clamped. Where fewer tiles in a row have one
    size, the last of them is given again.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    frames: int
    height: int
    width: int
    tiles: tuple[Tile, ...]
    together: int = 1


class WriteVideo(_Step, tag="write_video", frozen=True):
    """Write frames and waveform (f32 `[2, N]`) to the output file."""

    inputs: tuple[str, ...]
    fps: float
    sample_rate: int
    outputs: tuple[str, ...] = ()


FINEST_RATE = 100_000
"""Largest denominator of a frame rate."""


def frame_rate(fps: float) -> Fraction:
    """Frames per second as a fraction that files can hold.

    >>> frame_rate(24.0), frame_rate(23.976023976023978)
    (Fraction(24, 1), Fraction(24000, 1001))
    """
    return Fraction(fps).limit_denominator(FINEST_RATE)


Step = (
    Tokenize
    | Noise
    | Constant
    | Scales
    | LoadImage
    | PlaceImages
    | Run
    | Loop
    | Permute
    | DecodeTiles
    | WriteVideo
)
Plan = tuple[Step, ...]


def programs_of(step: Step) -> tuple[str, ...]:
    """Programs that a step executes, in order of first use."""
    match step:
        case Run(program=program) | Loop(program=program):
            return (program,)
        case DecodeTiles(tiles=tiles):
            return tuple(dict.fromkeys(tile.program for tile in tiles))
        case _:
            return ()


def tensors_in(step: Step) -> tuple[str, ...]:
    """Tensors that a step reads."""
    return (*step.inputs, step.sigmas) if isinstance(step, Loop) else step.inputs


def last_uses(names_per_step: Iterable[Sequence[str]]) -> dict[str, int]:
    """Index of the last step that uses each name: after it, the named thing can go."""
    return {name: index for index, names in enumerate(names_per_step) for name in names}
