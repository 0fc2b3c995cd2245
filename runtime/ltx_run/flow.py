"""What follows from a plan before anything runs: shapes of tensors, needed steps, what runs together.

A contradiction in a plan (an unknown program, a tensor of another shape than its reader takes) is found here,
so that a run either starts sound or doesn't start.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ltx_run import soundness
from ltx_run.bundle import Program, TensorInput
from ltx_run.distribution import DTYPES
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
    Tokenize,
    WriteVideo,
    programs_of,
    tensors_in,
)

PROMPT = "prompt"
NEGATIVE_PROMPT = "negative_prompt"
TEXTS = (PROMPT, NEGATIVE_PROMPT)
"""The texts that a plan starts from: the names that no step makes."""
_MOST = 1 << 40
"""Values of a tensor: more than any machine holds, and few enough for numpy to count their bytes."""


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
    soundness.check(plan)
    known: dict[str, Signature] = {}
    for step in plan:
        _check_names(step, known)
        made = _made(step, known, programs)
        if len(made) != len(step.outputs):
            raise BundleInvalid(
                f"a step names {len(step.outputs)} results ({step.outputs}) and makes {len(made)}"
            )
        for name, (shape, dtype) in zip(step.outputs, made, strict=True):
            if dtype not in DTYPES or min(shape, default=1) < 1 or math.prod(shape) > _MOST:
                raise BundleInvalid(f"the plan makes {name} as {dtype}{list(shape)}, which no program takes")
        known.update(zip(step.outputs, made, strict=True))
    return known


def _check_names(step: Step, known: Collection[str]) -> None:
    """Texts are there for being tokenized; all else is made once, before it is read."""
    for name in tensors_in(step):
        if isinstance(step, Tokenize) != (name in TEXTS):
            kind = soundness.kind(step)
            raise BundleInvalid(f"a step {kind} reads {name}: tokenize reads texts alone, and alone does so")
        if name not in TEXTS and name not in known:
            raise BundleInvalid(f"the plan reads {name} before any step makes it")
        if isinstance(step, Tokenize) and name != PROMPT and name not in step.defaults:
            raise BundleInvalid(f"the plan reads {name}, which may be left out, and has no default for it")
    for name in step.outputs:
        if name in TEXTS or name in known or step.outputs.count(name) > 1:
            raise BundleInvalid(f"the plan makes {name}, which is there already")


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
            given = known[inputs[0]]
            if math.prod(view) != math.prod(given.shape):
                raise BundleInvalid(f"the plan views {inputs[0]}, which is {given}, as {list(view)}")
            return [Signature(tuple(view[axis] for axis in axes), given.dtype)]
        case DecodeTiles():
            return [_decoded(step, known, programs)]
        case WriteVideo(inputs=(frames, waveform)):
            _check_video(known[frames], known[waveform])
    return []


def _check_video(frames: Signature, waveform: Signature) -> None:
    """Encoders take pairs of rows and columns, and two channels."""
    match frames, waveform:
        case Signature((_, height, width, 3), "uint8"), Signature((2, _)):
            if height % 2 == width % 2 == 0:
                return
    raise BundleInvalid(f"no video has frames {frames} and the waveform {waveform}")


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
    if made != given[:carried]:
        raise BundleInvalid(f"program {step.program} doesn't return what the loop carries")
    schedule = known[step.sigmas]
    if schedule.dtype != "float32" or len(schedule.shape) != 1 or schedule.shape[0] < 2:
        raise BundleInvalid(f"the plan loops along {step.sigmas}, which is {schedule} and no schedule")
    return made


def _decoded(step: DecodeTiles, known: Mapping[str, Signature], programs: Programs) -> Signature:
    latent = known[step.inputs[0]]
    if len(latent.shape) != 5 or latent.shape[0] != 1:
        raise BundleInvalid(f"the plan decodes {step.inputs[0]}, which is {latent} and no latent of a video")
    for tile in step.tiles:
        size = tuple(stop - start for start, stop in zip(tile.start, tile.stop, strict=True))
        if any(stop > length for stop, length in zip(tile.stop, latent.shape[2:], strict=True)):
            raise BundleInvalid(f"a tile ends at {list(tile.stop)}, outside of the latent {latent}")
        given = Signature((step.together, latent.shape[1], *size), latent.dtype)
        made = _called(tile.program, [given], programs)
        extent = (stop - start for start, stop in zip(tile.out_start, tile.out_stop, strict=True))
        if [result.shape for result in made] != [(step.together, *extent, 3)]:
            shown = ", ".join(map(str, made))
            raise BundleInvalid(f"program {tile.program} makes {shown}, its tile doesn't have that size")
    return Signature((step.frames, step.height, step.width, 3), "uint8")


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
