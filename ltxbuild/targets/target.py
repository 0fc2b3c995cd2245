"""What every target says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ltxbuild.targets.section import TargetSection


class Target(Protocol):
    """One platform, as the build sees it.

    Attributes:
        platform: Its name in recipes.
        packages: Packages whose versions code generation depends on; factors of the program key.
        backend: Module that the compile process uses for it, see `compiler.backend`.
        assembler: Module with a function like `neuron.assembly.assemble`, for a compiler that is a program of
            its own: the compile process then gives what that compiler reads. None where it gives executables.
    """

    platform: str
    packages: tuple[str, ...]
    backend: str
    assembler: str | None

    def runs(self, kind: str) -> bool:
        """Whether programs of that kind run on the platform; the others run on the host's CPU beside it."""

    def flags(self, kind: str) -> Mapping[str, Any]:
        """Compiler flags for programs of that kind, that a recipe's own are laid over."""

    def machine(self, section: TargetSection) -> dict[str, Any]:
        """What the compiler must know of the machine; part of the program key.

        Raises:
            RecipeError: The recipe names no machine of this platform.
        """

    def tools(self, section: TargetSection) -> dict[str, str]:
        """Versions of compilers that are no packages here; a factor of the program key."""

    def environment(self, machine: Mapping[str, Any], devices: int) -> dict[str, str]:
        """Variables of compile processes for so many devices, beside a scrubbed environment."""

    def check(self) -> None:
        """Refuse when the compiler is not installed.

        Raises:
            ToolMissing: Names what is missing and the command that installs it.
        """
