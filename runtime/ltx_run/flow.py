"""What follows from a plan before anything runs: shapes of tensors, needed steps, what runs together.

A contradiction in a plan (an unknown program, a tensor of another shape than its reader takes) is found here,
so that a run either starts sound or doesn't start.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ltx_run.bundle import Program, TensorInput
from ltx_run.errors import BundleInvalid
from ltx_run.plan import (
    Constant,
    DecodeTiles,
    LoadImage,
    Loop,
    Noise,
    Permute,
    PlaceImages,
    Plan,
    Run,
    Scales,
    Step,
    Tile,
    Tokenize,
    WriteVideo,
    programs_of,
    tensors_in,
)

PROMPT = "prompt"
NEGATIVE_PROMPT = "negative_prompt"
TEXTS = (PROMPT, NEGATIVE_PROMPT)
"""The texts that a plan starts from: the names that no step makes."""


class Signature(NamedTuple):
    """Shape and dtype of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


Programs = Mapping[str, Program]


def signatures(plan: Plan, programs: Programs) -> dict[str, Signature]:
    """Shape and dtype of every tensor that the plan makes; a stream of frames counts as uint8.

    Raises:
        BundleInvalid: The plan contradicts itself or the programs.
    """
    known: dict[str, Signature] = {}
    for step in plan:
        for name in tensors_in(step):
            if name not in TEXTS and name not in known:
                raise BundleInvalid(f"the plan reads {name} before any step makes it")
        made = _made(step, known, programs)
        if len(made) != len(step.outputs):
            raise BundleInvalid(
                f"a step names {len(step.outputs)} results ({step.outputs}) and makes {len(made)}"
            )
        known.update(zip(step.outputs, made, strict=True))
    return known


def _made(step: Step, known: Mapping[str, Signature], programs: Programs) -> list[Signature]:
    """Signatures of a step's results, after a check of what it reads."""
    match step:
        case Tokenize(inputs=prompts, length=length):
            return [Signature((len(prompts), length), dtype) for dtype in ("int32", "bool")]
        case Noise(shape=shape, dtype=dtype):
            return [Signature(shape, dtype)]
        case Constant(values=values, dtype=dtype):
            return [Signature((len(values),), dtype)]
        case Scales(names=names):
            return [Signature((len(names),), "float32")]
        case LoadImage(height=height, width=width, dtype=dtype):
            return [Signature((1, 3, 1, height, width), dtype)]
        case PlaceImages(keyframes=keyframes):
            return [Signature((keyframes + 1,), dtype) for dtype in ("int32", "float32")]
        case Run(program=program, inputs=inputs):
            return _called(program, [known[name] for name in inputs], programs)
        case Loop():
            return _looped(step, known, programs)
        case Permute(inputs=inputs, view=view, axes=axes):
            return [Signature(tuple(view[axis] for axis in axes), known[inputs[0]].dtype)]
        case DecodeTiles():
            return [_decoded(step, known, programs)]
        case WriteVideo():
            return []


def _called(name: str, given: Sequence[Signature], programs: Programs) -> list[Signature]:
    if name not in programs:
        raise BundleInvalid(f"the plan runs program {name}, which the bundle doesn't have")
    program = programs[name]
    taken = [Signature(i.shape, i.dtype) for i in program.inputs if isinstance(i, TensorInput)]
    if list(given) != taken:
        shown = " and ".join(f"({', '.join(map(str, some))})" for some in (given, taken))
        raise BundleInvalid(f"the plan gives and program {name} takes different tensors: {shown}")
    return [Signature(output.shape, output.dtype) for output in program.outputs]


def _looped(step: Loop, known: Mapping[str, Signature], programs: Programs) -> list[Signature]:
    given = [known[name] for name in step.inputs]
    carried = len(step.outputs)
    sigmas = [Signature((count,), "float32") for count in (1, step.stride)]
    made = _called(step.program, [*given[:carried], *sigmas, *given[carried:]], programs)
    if made != given[:carried] or len(known[step.sigmas].shape) != 1:
        raise BundleInvalid(f"program {step.program} doesn't return what the loop carries")
    return made


def _decoded(step: DecodeTiles, known: Mapping[str, Signature], programs: Programs) -> Signature:
    latent = known[step.inputs[0]]
    for tile in step.tiles:
        size = tuple(stop - start for start, stop in zip(tile.start, tile.stop, strict=True))
        given = Signature((step.together, *latent.shape[1:2], *size), latent.dtype)
        (made,) = _called(tile.program, [given], programs)
        extent = (stop - start for start, stop in zip(tile.out_start, tile.out_stop, strict=True))
        if made.shape != (step.together, *extent, 3):
            raise BundleInvalid(f"program {tile.program} makes {made}, its tile doesn't have that size")
    _check_cover(step)
    return Signature((step.frames, step.height, step.width, 3), "uint8")


def _check_cover(step: DecodeTiles) -> None:
    """Tiles must come in the order of time and end where the video ends."""
    starts = [tile.out_start[0] for tile in step.tiles]
    ends = [max(tile.out_stop[axis] for tile in step.tiles) for axis in range(3)]
    if starts != sorted(starts) or starts[0] or ends != [step.frames, step.height, step.width]:
        raise BundleInvalid("the tiles of a decode don't cover the video in the order of time")


def needed(plan: Plan, given: Collection[str], unwanted: Collection[str] = ()) -> Plan:
    """The steps that writing the video needs.

    Args:
        plan: All steps.
        given: Tensors that are given from outside.
        unwanted: Tensors that needn't be written.

    Raises:
        BundleInvalid: The plan writes no video.
    """
    if not any(isinstance(step, WriteVideo) for step in plan):
        raise BundleInvalid("the plan writes no video")
    wanted: set[str] = set()
    kept: list[Step] = []
    for step in reversed(plan):
        missing = set(step.outputs) & wanted - set(given)
        if missing or isinstance(step, WriteVideo):
            kept.append(step)
            wanted |= set(tensors_in(step)).difference(unwanted if isinstance(step, WriteVideo) else ())
    return tuple(reversed(kept))


def shared(plan: Plan, given: Collection[str], wide: Collection[str]) -> Plan:
    """The steps that a process does which writes nothing itself: its part of programs that all execute.

    Args:
        plan: The steps that the process which writes does.
        given: Tensors that are given from outside.
        wide: Programs that span the devices of all processes.
    """
    wanted: set[str] = set()
    kept: list[Step] = []
    for step in reversed(plan):
        if isinstance(step, WriteVideo):
            # Its frames come from tiles, which are decoded as they are read.
            read = step.inputs[0] if _decoded_by(plan, step.inputs[0], wide) else None
            kept += [step] if read else []
            wanted |= {read} if read else set()
        elif not set(wide).isdisjoint(programs_of(step)) or set(step.outputs) & wanted - set(given):
            kept.append(step)
            wanted |= set(tensors_in(step))
    return tuple(reversed(kept))


def _decoded_by(plan: Plan, frames: str, programs: Collection[str]) -> bool:
    """Whether any of the programs decodes these frames."""
    decoders = (step for step in plan if isinstance(step, DecodeTiles) and frames in step.outputs)
    return any(tile.program in programs for step in decoders for tile in step.tiles)


def from_prompts(plan: Iterable[Step]) -> frozenset[str]:
    """Tensors that follow from the prompts alone, whatever the seed is."""
    known: set[str] = set()
    for step in plan:
        inputs = tensors_in(step)
        made_of = inputs and known.issuperset(inputs)
        if isinstance(step, Tokenize) or (isinstance(step, Run | Permute) and made_of):
            known.update(step.outputs)
    return frozenset(known)


def stages(plan: Plan) -> tuple[tuple[Step, ...], ...]:
    """Steps grouped by what runs together: a decode runs while the step that reads its frames does.

    Raises:
        BundleInvalid: Frames are read by no step or by several.
    """
    streams = {step.outputs[0]: step for step in plan if isinstance(step, DecodeTiles)}
    grouped: list[tuple[Step, ...]] = []
    for step in plan:
        if not isinstance(step, DecodeTiles):
            sources = [streams.pop(name) for name in tensors_in(step) if name in streams]
            grouped.append((*sources, step))
    if streams:
        raise BundleInvalid(f"no step reads the frames {', '.join(streams)}")
    return tuple(grouped)


def temporal_groups(tiles: Sequence[Tile]) -> list[list[Tile]]:
    """Tiles grouped by their frames, in order."""
    groups: dict[tuple[int, int], list[Tile]] = {}
    for tile in tiles:
        groups.setdefault((tile.out_start[0], tile.out_stop[0]), []).append(tile)
    return list(groups.values())
