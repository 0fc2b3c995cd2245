"""The interpreter: walks a plan, step by step, and knows no model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltx_run import tensors
from ltx_run.blend import blend
from ltx_run.distribution import DTYPES
from ltx_run.job import Job
from ltx_run.noise import normal
from ltx_run.pjrt import Devices, Tensor
from ltx_run.plan import (
    Constant,
    DecodeTiles,
    Loop,
    Noise,
    Permute,
    Run,
    Step,
    Tile,
    Tokenize,
    WriteVideo,
    last_uses,
    programs_of,
    tensors_in,
)
from ltx_run.programs import Programs, Value
from ltx_run.report import Observer, Report
from ltx_run.tokens import padded
from ltx_run.video import VideoWriter

Array = NDArray[Any]
Stream = Iterator[NDArray[np.float32]]


def run(job: Job, observer: Observer) -> Report:
    """Make the video.

    Raises:
        LtxError: A file is damaged, or a program fails.
        OSError: The output can't be written.
    """
    started = time.perf_counter()
    with Programs(job.bundle, Devices(job.devices)) as programs:
        interpreter = Interpreter(job, programs, observer)
        interpreter.run()
    if job.request.tensors_out:
        tensors.write(job.request.tensors_out, interpreter.kept)
    return Report(
        bundle=job.bundle.where,
        digest=job.bundle.digest,
        variant=job.variant,
        seed=job.request.seed,
        output=str(job.request.output),
        frames=interpreter.frames,
        kept=sorted(interpreter.kept),
        seconds=time.perf_counter() - started,
        programs=list(programs.reports.values()),
    )


class Interpreter:
    """One run of a plan.

    Attributes:
        kept: Tensors for the user, on the host.
        frames: Frames written so far.
    """

    def __init__(self, job: Job, programs: Programs, observer: Observer) -> None:
        self._job = job
        self._programs = programs
        self._observer = observer
        self._stages = job.stages
        self._keep = frozenset(tensors.KEPT) if job.request.tensors_out else frozenset()
        self._last_use = last_uses([[n for s in stage for n in tensors_in(s)] for stage in job.stages])
        self._values: dict[str, Value] = {}
        self._streams: dict[str, Stream] = {}
        self.kept: dict[str, Array] = {}
        self.frames = 0
        for name, value in job.given.items():
            self._put(name, value)

    def run(self) -> None:
        """Do every step; what is no longer needed goes after each stage."""
        needs = [tuple(name for step in stage for name in programs_of(step)) for stage in self._stages]
        for index, stage in enumerate(self._stages):
            later = [name for names in needs[index + 1 :] for name in names]
            self._programs.read_ahead([*needs[index], *self._next(needs[index + 1 :])])
            for step in stage:
                self._do(step, index)
            self._programs.release(later)
            for name in [name for name in self._values if self._last_use.get(name, -1) <= index]:
                del self._values[name]

    @staticmethod
    def _next(needs: Sequence[Sequence[str]]) -> Sequence[str]:
        return next((names for names in needs if names), ())

    def _put(self, name: str, value: Value) -> None:
        self._values[name] = value
        if name in self._keep:
            self.kept[name] = np.array(_host(value))

    def _do(self, step: Step, index: int) -> None:
        match step:
            case Tokenize():
                assert self._job.ids is not None
                self._name(step, padded(self._job.ids, step))
            case Noise(shape=shape, dtype=dtype, draw=draw):
                seed = self._job.request.seed
                self._name(step, [normal(seed=seed, draw=draw, shape=shape, dtype=dtype)])
            case Constant(values=values, dtype=dtype):
                self._name(step, [np.array(values, np.float64).astype(DTYPES[dtype])])
            case Permute(inputs=inputs, view=view, axes=axes):
                permuted = _host(self._values[inputs[0]]).reshape(view).transpose(axes)
                self._name(step, [np.ascontiguousarray(permuted)])
            case Run(program=program, inputs=inputs):
                self._observer.start(program, 1)
                self._name(step, self._call(program, inputs, index))
                self._observer.finish()
            case Loop():
                self._observer.start(step.program, len(_host(self._values[step.sigmas])) - 1)
                self._name(step, self._loop(step, index))
                self._observer.finish()
            case DecodeTiles(outputs=outputs):
                self._streams[outputs[0]] = self._decode(step)
            case WriteVideo():
                self._write(step)

    def _name(self, step: Step, results: Sequence[Value]) -> None:
        for name, value in zip(step.outputs, results, strict=True):
            if name not in self._job.given:
                self._put(name, value)

    def _spent(self, name: str, names: Sequence[str], index: int) -> bool:
        """Whether a program may take over the tensor's memory."""
        return self._last_use[name] == index and names.count(name) == 1

    def _call(self, program: str, names: Sequence[str], index: int) -> list[Tensor]:
        spent = [self._spent(name, names, index) for name in names]
        return self._programs.call(program, [self._values[name] for name in names], spent)

    def _loop(self, step: Loop, index: int) -> Sequence[Value]:
        sigmas = _host(self._values[step.sigmas])
        carried = len(step.outputs)
        state: Sequence[Value] = [self._values[name] for name in step.inputs[:carried]]
        rest = [self._values[name] for name in step.inputs[carried:]]
        spent = [self._spent(name, step.inputs, index) for name in step.inputs[:carried]]
        for number in range(len(sigmas) - 1):
            pair = [sigmas[number : number + 1], sigmas[number + 1 : number + 2]]
            unspent = [False] * len(rest)
            state = self._programs.call(step.program, [*state, *pair, *rest], [*spent, True, True, *unspent])
            spent = [True] * carried
            self._observer.advance()
        return state

    def _decode(self, step: DecodeTiles) -> Stream:
        latent = _host(self._values[step.inputs[0]])

        def decode(tile: Tile) -> Array:
            (t0, y0, x0), (t1, y1, x1) = tile.start, tile.stop
            cells = np.ascontiguousarray(latent[:, :, t0:t1, y0:y1, x0:x1])
            (decoded,) = self._programs.call(tile.program, [cells], [True])
            self._observer.advance()
            return decoded.numpy()

        self._observer.start("decode and write", len(step.tiles))
        yield from blend(step.tiles, step.height, step.width, decode)
        self._observer.finish()

    def _write(self, step: WriteVideo) -> None:
        name, waveform = step.inputs
        size = self._job.bundle.manifest.variants[self._job.variant]
        sound = _host(self._values[waveform])
        stream = self._streams.pop(name) if name in self._streams else _chunks(_host(self._values[name]))
        kept: list[NDArray[np.uint8]] = []
        path = self._job.request.output
        with VideoWriter(path, size.width, size.height, step.fps, sound, step.sample_rate) as writer:
            for chunk in stream:
                if name in self._keep and name not in self._job.given:
                    kept.append((chunk * 255).astype(np.uint8))
                for frame in chunk:
                    writer.frame(frame)
                self.frames += len(chunk)
        if kept:
            self.kept[name] = np.concatenate(kept)


def _host(value: Value) -> Array:
    return value.numpy() if isinstance(value, Tensor) else value


def _chunks(frames: NDArray[np.uint8]) -> Stream:
    """Frames from a file as a decode would give them."""
    for frame in frames:
        yield frame[None].astype(np.float32) / np.float32(255)
