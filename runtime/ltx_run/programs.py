"""Programs of a run: loaded beside other work, called, let go after their last use.

One background thread verifies, reads and loads what comes next while a program runs. It alone opens files.
Devices with memory of their own get weights from it too, as far as the program fits beside those that are
there; what doesn't fit waits until they can go.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Self

from numpy.typing import NDArray

from ltx_cache.home import home
from ltx_cache.store import Store
from ltx_run import memory
from ltx_run.bundle import Fingerprint, Program, TensorInput, WeightInput
from ltx_run.devices import Executable, Tensor
from ltx_run.lookup import OpenBundle
from ltx_run.machine import Machine
from ltx_run.phases import phase
from ltx_run.portable import Codes
from ltx_run.report import ProgramReport
from ltx_run.residency import footprint
from ltx_run.weights import Weights, available_memory

Value = Tensor | NDArray[Any]


class Loaded:
    """A program with its weights, ready to be called."""

    def __init__(self, program: Program, executable: Executable, weights: dict[int, Tensor]) -> None:
        self._executable = executable
        self._arguments = [weights.get(index) for index in range(len(program.inputs))]
        inputs = enumerate(program.inputs)
        self._tensors = [(i, record.donated) for i, record in inputs if isinstance(record, TensorInput)]

    def call(self, values: Sequence[Value], spent: Sequence[bool]) -> Sequence[Tensor]:
        """Execute and wait for the results.

        Args:
            values: The program's tensor inputs in order.
            spent: Per value, whether nobody needs it afterwards; what the program takes over and is not
                spent is copied first.
        """
        arguments = list(self._arguments)
        for (index, donated), value, free in zip(self._tensors, values, spent, strict=True):
            tensor = self._executable.argument(index, value)
            arguments[index] = tensor.copy() if donated and not free and tensor is value else tensor
        results = self._executable.execute([argument for argument in arguments if argument is not None])
        for result in results:
            result.wait()
        return results


class _Prepared(NamedTuple):
    """A program as the background thread leaves it; weights are None if there was no room for them yet."""

    executable: Executable
    weights: dict[int, Tensor] | None
    load_seconds: float
    compile_seconds: float


class Programs:
    """The programs of a bundle, by name.

    Attributes:
        reports: What each program cost so far, in order of first use.
    """

    def __init__(
        self, source: OpenBundle, machine: Machine, compiles: Mapping[str, Fingerprint] | None = None
    ) -> None:
        """Load nothing yet.

        Args:
            source: The bundle.
            machine: Where its programs run.
            compiles: Those that are compiled here, and what for.
        """
        self._source = source
        self._codes = Codes(source, compiles or {}, Store(home()))
        self._machine = machine
        self._manifest = source.manifest
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
        self._stop = threading.Event()
        self._pending: dict[str, Future[_Prepared]] = {}
        self._loaded: dict[str, Loaded] = {}
        self._weights: dict[str, Weights] = {}
        self._placed: dict[str, dict[Any, Tensor]] = {}
        self._placing = threading.Lock()
        self._current: str | None = None
        self.reports: dict[str, ProgramReport] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def resident(self) -> tuple[frozenset[str], frozenset[str]]:
        """Names of the programs and of the weight sets that are loaded or being loaded."""
        return frozenset(self._loaded) | frozenset(self._pending), frozenset(self._weights)

    def read_ahead(self, names: Iterable[str]) -> None:
        """Start loading programs in the background, in order."""
        for name in names:
            if name not in self._pending and name not in self._loaded:
                before = (*self._loaded, *self._pending)
                self._pending[name] = self._thread.submit(self._prepare, name, before)

    def _prepare(self, name: str, before: Sequence[str]) -> _Prepared:
        """In the background: everything that can be done while the programs `before` this one run."""
        with phase("load", name):
            started = time.perf_counter()
            program = self._manifest.programs[name]
            devices = self._machine.devices(program.fingerprint.platform)
            if program.weights is not None and program.weights not in self._weights:
                self._weights[program.weights] = self._open(program, program.weights)
            made = self._codes.of(name, devices)
            executable = devices.load(name, program, made.code)
            weights = None
            if devices.memory is not None and self._room(name, before):
                weights = self._place(program, executable)
            elif program.weights is not None and self._fits():
                self._weights[program.weights].read_ahead(self._stop)
            spent = time.perf_counter() - started - made.seconds
            return _Prepared(executable, weights, spent, made.seconds)

    def _room(self, name: str, others: Iterable[str]) -> bool:
        """Whether a program fits into the memory of its devices beside others; always, on the host's."""
        program = self._manifest.programs[name]
        platform = program.fingerprint.platform
        limit = self._machine.devices(platform).memory
        beside = (self._manifest.programs[other] for other in {*others} - {name})
        here = (other for other in beside if other.fingerprint.platform == platform)
        return limit is None or footprint([program, *here]) <= limit

    def _fits(self) -> bool:
        """Whether all open weight sets fit into memory; else reading ahead would push out what runs."""
        # The kernel counts pages of mapped files as available, in use or not.
        return sum(weights.size for weights in list(self._weights.values())) <= available_memory()

    def _open(self, program: Program, name: str) -> Weights:
        record = self._manifest.weights[name]
        shared = self._source.path(record.shared) if record.shared else None
        ranks = self._machine.ranks(program.fingerprint.platform, len(record.ranks))
        return Weights(name, shared, {rank: self._source.path(record.ranks[rank]) for rank in ranks})

    def call(self, name: str, values: Sequence[Value], spent: Sequence[bool]) -> Sequence[Tensor]:
        """Execute a program, which is loaded first if it has to be.

        Raises:
            LtxError: It can't be loaded or fails.
        """
        loaded = self._get(name)
        report = self.reports[name]
        started = time.perf_counter()
        with phase("run", name):
            results = loaded.call(values, spent)
        took = time.perf_counter() - started
        report.run_seconds += took
        report.fastest_seconds = min(report.fastest_seconds or took, took)
        report.calls += 1
        report.first_done = report.first_done or time.time()
        report.peak_bytes = max(report.peak_bytes, memory.peak())
        return results

    def _get(self, name: str) -> Loaded:
        if name != self._current:
            memory.reset_peak()
            self._current = name
        if name not in self._loaded:
            self._loaded[name] = self._finish(name)
        return self._loaded[name]

    def _finish(self, name: str) -> Loaded:
        """Wait for the background thread and put the weights on the devices, if it has not."""
        started = time.perf_counter()
        program = self._manifest.programs[name]
        self.read_ahead([name])
        prepared = self._pending.pop(name).result()
        begun = time.perf_counter()
        with phase("load", name):
            if not self._room(name, self._loaded):
                self._make_room(program)
            weights = prepared.weights
            if weights is None:
                weights = self._place(program, prepared.executable)
            prepared.executable.warm_up(weights)
        loaded = Loaded(program, prepared.executable, weights)
        report = self.reports.setdefault(name, ProgramReport(name, program.memory, program.flops))
        done = time.perf_counter()
        report.compile_seconds += prepared.compile_seconds
        report.load_seconds += prepared.load_seconds + done - begun
        report.wait_seconds += done - started
        return loaded

    def _make_room(self, program: Program) -> None:
        """Take all else from a program's devices; it is loaded again when the plan comes back to it."""
        platform = program.fingerprint.platform
        programs = self._manifest.programs
        for name in [name for name in self._loaded if programs[name].fingerprint.platform == platform]:
            del self._loaded[name]
        with self._placing:
            for weights, placed in self._placed.items():
                if weights != program.weights:
                    for key in [key for key in placed if key[0] == platform]:
                        del placed[key]

    def _place(self, program: Program, executable: Executable) -> dict[int, Tensor]:
        """Weights by parameter number; programs that share a weight set share what lies alike."""
        if program.weights is None:
            return {}
        files, arguments = self._weights[program.weights], {}
        with self._placing:
            placed = self._placed.setdefault(program.weights, {})
            for index, record in enumerate(program.inputs):
                if isinstance(record, WeightInput):
                    lies = executable.inputs[index]
                    key = (program.fingerprint.platform, record.name, record.layer, lies)
                    if key not in placed:
                        placed[key] = executable.put_weight(index, record, files)
                    arguments[index] = placed[key]
        return arguments

    def release(self, needed: Collection[str]) -> None:
        """Let go of every program, and of every weight set, that none of the `needed` programs uses."""
        for name in [name for name in self._loaded if name not in needed]:
            del self._loaded[name]
        sets = {self._manifest.programs[name].weights for name in needed}
        for name in [name for name in self._placed if name not in sets]:
            del self._placed[name]
            self._weights.pop(name).release()
