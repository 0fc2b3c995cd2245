"""NeuronCores as a run uses them: programs and weights live in a session, values on the host.

All that is on the device at a time is in one session, since the cores belong to one process until it ends. A
session begins with the first program that is put there, and ends when nothing of it is in use any more. A run
lets go of a component after its last use, so each component has a session of its own, and programs that share
weights share one.

What a program makes is read back at once: next to its execution that takes no time. An input is written again
only if it is another object than in the last call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ltx_run import devices as platform
from ltx_run.bundle import Program, WeightInput
from ltx_run.distribution import Distribution
from ltx_run.errors import BundleInvalid
from ltx_run.neuron.neff import BadNeff, read_header
from ltx_run.neuron.session import Runner, Session
from ltx_run.neuron.signature import Signature
from ltx_run.weights import Weights

Array = NDArray[Any]


class Weight:
    """A weight on the cores, in the files as well."""

    def __init__(
        self, record: WeightInput, distribution: Distribution, files: Weights, session: Session
    ) -> None:
        self.distribution = distribution
        self.session = session
        self._record = record
        self._files = files
        self.key = session.weight(self, record.name, files.places(record, distribution))

    def numpy(self) -> Array:
        """The whole weight, from its files."""
        return self.distribution.join(self._files.parts(self._record, self.distribution))

    def copy(self) -> Weight:
        """Itself: programs don't write to weights."""
        return self

    def wait(self) -> None:
        """Return at once."""


class Value:
    """An array that a program takes or made, on the host.

    Attributes:
        source: What it was made from, to know it again.
    """

    def __init__(self, array: Array, source: object = None) -> None:
        self.source = source
        self._array = array
        self._array.flags.writeable = False

    def numpy(self) -> Array:
        """The array, read-only."""
        return self._array

    def copy(self) -> Value:
        """The same values in memory of their own."""
        return Value(self._array.copy())

    def wait(self) -> None:
        """Return at once."""


class Executable:
    """A program for NeuronCores.

    Attributes:
        signature: What it takes and gives.
    """

    def __init__(self, signature: Signature, code: bytes, begin: Callable[[], Session]) -> None:
        """Note what is to be put on the device; nothing is before the first weight, or `warm_up`.

        Args:
            signature: Of the program.
            code: Its NEFF.
            begin: Gives the session that it shall be in.
        """
        self.signature = signature
        self._code = code
        self._begin = begin
        self._session: Session | None = None
        self._given: dict[int, Value] = {}

    @property
    def inputs(self) -> Sequence[Distribution]:
        """Distribution of each parameter."""
        return self.signature.inputs

    def _open(self) -> Session:
        if self._session is None:
            self._session = self._begin()
            self._session.program(self, self.signature, self._code)
            self._code = b""
        return self._session

    def argument(self, index: int, value: platform.Tensor | Array) -> Value:
        """A value as parameter number `index`; the same value as in the last call is known again."""
        if isinstance(value, Value):
            return value
        last = self._given.get(index)
        if last is not None and last.source is value:
            return last
        return Value((value if isinstance(value, np.ndarray) else value.numpy()).view(), value)

    def put_weight(self, index: int, record: WeightInput, files: Weights) -> Weight:
        """A weight as parameter number `index`, copied from its files to the cores."""
        return Weight(record, self.inputs[index], files, self._open())

    def warm_up(self, weights: Mapping[int, platform.Tensor]) -> None:
        """Bind the program to its weights, and execute it with zeros.

        Raises:
            LtxError: It can't be loaded, or doesn't execute.
        """
        session, name = self._open(), self.signature.name
        keys = {index: cast(Weight, weight).key for index, weight in weights.items()}
        session.run(lambda runner: runner.warm_up(name, keys))

    def execute(self, arguments: Sequence[platform.Tensor]) -> list[Value]:
        """Execute the program.

        Raises:
            ProgramFailed: It fails, or gives no answer in time.
        """
        given = {index: cast(Value, arguments[index]) for index in self.signature.changing}
        changed = {i: value.numpy() for i, value in given.items() if value is not self._given.get(i)}
        self._given = given
        results = self._open().run(lambda runner: runner.execute(self.signature.name, changed))
        return [Value(result) for result in results]


class Devices:
    """The NeuronCores of a run.

    Attributes:
        memory: None, so that a component's weights wait until the one before has left the cores; whether they
            fit is checked when its session begins.
    """

    memory: int | None = None

    def __init__(self, start: Callable[[int, int], Runner]) -> None:
        """Note how to start what holds the cores; see `loaders`."""
        self._start = start
        self._session: Session | None = None
        self._form = (0, 0)

    def ranks(self, count: int) -> range:
        """All: one process holds the cores of all ranks."""
        return range(count)

    def load(self, name: str, program: Program, code: bytes) -> Executable:
        """Check a program on the host; the device may still be another's.

        Raises:
            BundleInvalid: It is no NEFF, or contradicts the program's record.
        """
        signature = Signature.of(name, program)
        try:
            header = read_header(code)
        except BadNeff as error:
            raise BundleInvalid(f"program {name}: {error}") from None
        if f"lnc{header.lnc}" not in program.fingerprint.features:
            made_for = " ".join(program.fingerprint.features)
            raise BundleInvalid(
                f"program {name}: its NEFF is for logical cores of {header.lnc}, its record says {made_for}",
                hint="compile it again: ltxbuild compile RECIPE",
            )
        form = (program.fingerprint.devices, header.lnc)
        return Executable(signature, code, lambda: self._begin(form))

    def _begin(self, form: tuple[int, int]) -> Session:
        if self._session is None:
            self._form = form
            self._session = Session(self._start(*form), self._ended)
        elif form != self._form:
            (cores, lnc), (others, size) = form, self._form
            raise BundleInvalid(
                f"a program for {cores} cores of size {lnc} can't be on the device beside one for {others} "
                f"of size {size}",
                hint="compile all programs of the recipe with the same tensor_parallel and --lnc",
            )
        return self._session

    def _ended(self) -> None:
        self._session = None
