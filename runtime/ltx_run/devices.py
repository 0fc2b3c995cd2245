"""What a run asks of devices, whatever their platform: they hold tensors, and load and execute programs.

The programs of a bundle may be for different platforms. A tensor goes from one to another by way of the host:
`Executable.argument` takes any tensor and any host array. A platform is a module in `ltx_run.platforms`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from ltx_run.bundle import Program, WeightInput
from ltx_run.distribution import Distribution
from ltx_run.weights import Weights

Array = NDArray[Any]


class Tensor(Protocol):
    """An array on the devices of one platform; its memory there is freed with the last reference."""

    def numpy(self) -> Array:
        """The whole array on the host, read-only; waits until it is there.

        Raises:
            ProgramFailed: The program that makes it failed.
        """

    def copy(self) -> Tensor:
        """The same values in memory of their own, on the same devices."""

    def wait(self) -> None:
        """Return when the values are there; an interrupt from the keyboard gets through meanwhile.

        Raises:
            ProgramFailed: The program that makes them failed.
        """


class Executable(Protocol):
    """A loaded program."""

    @property
    def inputs(self) -> Sequence[Distribution]:
        """Distribution of each parameter."""

    def argument(self, index: int, value: Tensor | Array) -> Tensor:
        """A value as parameter number `index`.

        Returns:
            `value` itself if it is a tensor that lies as the program takes it; else a new tensor.
        """

    def put_weight(self, index: int, record: WeightInput, files: Weights) -> Tensor:
        """A weight as parameter number `index`, from its files, which must not change afterwards.

        Returns:
            A tensor that other programs of the same devices may take as well, if it lies as they take it.
        """

    def warm_up(self, weights: Mapping[int, Tensor]) -> None:
        """Make ready what `load` could not while other programs executed; called once, before all calls.

        Args:
            weights: What `put_weight` gave, by parameter number.

        Raises:
            LtxError: The program can't run here.
        """

    def execute(self, arguments: Sequence[Tensor]) -> Sequence[Tensor]:
        """Start the program and return its results, which may not be there yet: wait for one before use.

        Arguments are what `argument` and `put_weight` gave, in parameter order; donated ones are gone
        afterwards.

        Raises:
            ProgramFailed: The program could not be started.
        """


class Devices(Protocol):
    """A row of devices of one platform: rank r of a program runs on device r."""

    @property
    def memory(self) -> int | None:
        """Bytes of each device's own memory; None where programs share the host's."""

    def ranks(self, count: int) -> Sequence[int]:
        """Ranks of a program that spans so many devices, as far as this process has them: usually all."""

    def load(self, name: str, program: Program, code: bytes) -> Executable:
        """Make an executable ready to run.

        The caller has verified the digest of `code` and the fingerprint: code of another machine crashes. It
        is called by one background thread, while programs of other names execute.

        Raises:
            BundleInvalid: The executable can't be loaded, or contradicts the program's record.
        """


@runtime_checkable
class Compiler(Protocol):
    """Devices of a platform that compiles programs where they run."""

    def compile(self, name: str, program: Program, module: bytes) -> bytes:
        """Compile a program's portable form for these devices; as long as it takes.

        Returns:
            An executable for `load`.

        Raises:
            CompileFailed: The compiler refuses it.
        """
