"""The interpreter: does the steps of one video's plan, and knows no model."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltx_run import provenance, tensors
from ltx_run.blend import blend
from ltx_run.devices import Tensor
from ltx_run.distribution import DTYPES
from ltx_run.encoders import Clip, Sound
from ltx_run.job import Batch, Job
from ltx_run.noise import normal
from ltx_run.outputs import SHEET, Output
from ltx_run.phases import phase
from ltx_run.pictures import rgb24
from ltx_run.plan import (
    Constant,
    DecodeTiles,
    Loop,
    Noise,
    Permute,
    Run,
    Scales,
    Step,
    Tile,
    Tokenize,
    WriteVideo,
    frame_rate,
    last_uses,
    tensors_in,
)
from ltx_run.programs import Programs, Value
from ltx_run.report import Observer
from ltx_run.tiled import decoded
from ltx_run.tokens import padded

Array = NDArray[Any]
Stream = Iterator[NDArray[np.float32]]
BACKLOG = 64
"""Frames that may wait for the encoder while later ones are decoded: about a temporal tile, in bytes."""


class Interpreter:
    """One job of a batch on its way through the plan.

    Attributes:
        job: What is made.
        stages: Per stage of the batch, the steps that this job needs.
        kept: Tensors for the user, on the host.
        frames: Frames written so far.
        done: Whether every step is done.
    """

    def __init__(self, job: Job, batch: Batch, programs: Programs, observer: Observer) -> None:
        self.job = job
        self.stages = batch.stages_of(job)
        self.kept: dict[str, Array] = {}
        self.frames = 0
        self.done = False
        self._tags = provenance.tags(job, batch)
        self._size = batch.bundle.manifest.variants[batch.variant]
        self._programs = programs
        self._observer = observer
        made = (name for step in job.plan for name in step.outputs)
        self._keep = tensors.worth_keeping(made) if job.request.tensors_out else frozenset()
        self._last_use = last_uses([[n for s in stage for n in tensors_in(s)] for stage in self.stages])
        self._values: dict[str, Value] = {}
        self._borrowed: set[str] = set()
        self._streams: dict[str, Stream] = {}
        for name, value in job.given.items():
            self._put(name, value)

    def parts(self, stage: int) -> int:
        """What the observer is told of as parts of a stage: calls, denoising steps, tiles."""
        return sum(self._parts(step) for step in self.stages[stage])

    def _parts(self, step: Step) -> int:
        match step:
            case Run():
                return 1
            case Loop(sigmas=sigmas, stride=stride):
                return -(-(len(_host(self._values[sigmas])) - 1) // stride)
            case DecodeTiles(tiles=tiles):
                return len(tiles)
            case _:
                return 0

    def do(self, stage: int) -> None:
        """Do the steps of a stage."""
        for step in self.stages[stage]:
            self._do(step, stage)

    def borrow(self, other: Interpreter, stage: int) -> None:
        """Take what another job has made in a stage instead of doing its steps."""
        names = [name for step in self.stages[stage] for name in step.outputs]
        made = {name: other._values[name] for name in names if name in other._values}
        for job in (self, other):
            job._borrowed.update(made)
        self._name(tuple(made), tuple(made.values()))
        for _ in range(self.parts(stage)):
            self._observer.advance()

    def on_host(self, names: Collection[str]) -> dict[str, Array] | None:
        """Values of tensors; None unless all of them are there."""
        if not self._values.keys() >= set(names):
            return None
        return {name: _host(self._values[name]) for name in names}

    def finish(self, stage: int, *, leave_devices: bool) -> None:
        """Let go of what no later stage needs; `leave_devices` moves the rest to the host."""
        self.done = not any(self.stages[stage + 1 :])
        for name in list(self._values):
            if self._last_use.get(name, -1) <= stage:
                del self._values[name]
            elif leave_devices:
                self._values[name] = _host(self._values[name])

    def stop(self) -> None:
        """Let go of everything."""
        self._values.clear()
        self._streams.clear()

    def _put(self, name: str, value: Value) -> None:
        self._values[name] = value
        if name in self._keep:
            self.kept[name] = np.array(_host(value))

    def _do(self, step: Step, index: int) -> None:
        match step:
            case Tokenize():
                self._name(step.outputs, padded(self.job.prompts(step), step))
            case Noise(shape=shape, dtype=dtype, draw=draw):
                seed = self.job.request.seed
                self._name(step.outputs, [normal(seed=seed, draw=draw, shape=shape, dtype=dtype)])
            case Constant(values=values, dtype=dtype):
                self._name(step.outputs, [np.array(values, np.float64).astype(DTYPES[dtype])])
            case Scales(values=values):
                self._name(step.outputs, [np.array(values, np.float32)])
            case Permute(inputs=inputs, view=view, axes=axes):
                permuted = _host(self._values[inputs[0]]).reshape(view).transpose(axes)
                self._name(step.outputs, [np.ascontiguousarray(permuted)])
            case Run(program=program, inputs=inputs):
                self._name(step.outputs, self._call(program, inputs, index))
                self._observer.advance()
            case Loop():
                self._name(step.outputs, self._loop(step, index))
            case DecodeTiles(outputs=outputs):
                stream = blend(step.tiles, step.height, step.width, self._decode(step))
                self._streams[outputs[0]] = stream
            case WriteVideo():
                self._write(step)

    def _name(self, names: Sequence[str], results: Sequence[Value]) -> None:
        for name, value in zip(names, results, strict=True):
            if name not in self.job.given:
                self._put(name, value)

    def _spent(self, name: str, names: Sequence[str], index: int) -> bool:
        """Whether a program may take over the tensor's memory."""
        return self._last_use[name] == index and names.count(name) == 1 and name not in self._borrowed

    def _call(self, program: str, names: Sequence[str], index: int) -> Sequence[Tensor]:
        spent = [self._spent(name, names, index) for name in names]
        return self._programs.call(program, [self._values[name] for name in names], spent)

    def _loop(self, step: Loop, index: int) -> Sequence[Value]:
        sigmas = _host(self._values[step.sigmas])
        carried = len(step.outputs)
        values = [self._values[name] for name in step.inputs]
        state: Sequence[Value] = values[:carried]
        spent = [self._spent(name, step.inputs, index) for name in step.inputs[:carried]]
        unspent = [False] * (len(values) - carried)
        for now, then in _windows(sigmas, step.stride):
            given = [*state, now, then, *values[carried:]]
            state = self._programs.call(step.program, given, [*spent, True, True, *unspent])
            spent = [True] * carried
            self._observer.advance()
        return state

    def _decode(self, step: DecodeTiles) -> Iterator[Array]:
        def decode(tiles: Sequence[Tile], cells: Array) -> Array:
            with phase("decode", f"frames from {tiles[0].out_start[0]}"):
                (frames,) = self._programs.call(tiles[0].program, [cells], [True])
            for _ in tiles:
                self._observer.advance()
            return frames.numpy()

        return decoded(step, _host(self._values[step.inputs[0]]), decode)

    def _write(self, step: WriteVideo) -> None:
        (name, waveform), request = step.inputs, self.job.request
        if not request.writes:
            deque(self._chunks(name), maxlen=0)  # decoded here with the process that writes them
            return
        heard = _host(self._values[waveform]) if request.wants_sound else None
        clip = Clip(
            width=self._size.width,
            height=self._size.height,
            frames=self._size.frames,
            fps=frame_rate(step.fps),
            sound=None if heard is None else Sound(heard, step.sample_rate),
            tags=self._tags,
        )
        kept: list[NDArray[np.uint8]] = []
        with phase("write", request.output.name), ExitStack() as stack:
            files = [stack.enter_context(file) for file in self._outputs(clip)]
            shown = [file for file in files if file.kind.pictures]
            for chunk in self._chunks(name) if request.wants_pictures else ():
                if name in self._keep and name not in self.job.given:
                    kept.append(rgb24(chunk))
                for frame in chunk:
                    for file in shown:
                        file.frame(frame)
                self.frames += len(chunk)
        if kept:
            self.kept[name] = np.concatenate(kept)

    def _outputs(self, clip: Clip) -> Iterator[Output]:
        request = self.job.request
        yield Output(request.kind, request.output, clip, BACKLOG)
        if request.contact_sheet:
            yield Output(SHEET, request.contact_sheet, clip)

    def _chunks(self, name: str) -> Stream:
        """Frames as they are decoded, or given ones in the same form."""
        if name in self._streams:
            yield from self._streams.pop(name)
        else:
            for frame in _host(self._values[name]):
                yield frame[None].astype(np.float32) / np.float32(255)


def _host(value: Value) -> Array:
    return value if isinstance(value, np.ndarray) else value.numpy()


def _windows(sigmas: Array, stride: int) -> Iterator[tuple[Array, Array]]:
    """Per call of a loop the sigma it starts at and the `stride` sigmas that follow."""
    last = len(sigmas) - 1
    for start in range(0, last, stride):
        following = np.minimum(np.arange(start + 1, start + stride + 1), last)
        yield sigmas[start : start + 1], sigmas[following]
