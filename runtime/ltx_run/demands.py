"""What programs demand of this machine and of the bundle's files, found out before any is loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from ltx_run.bundle import Blob, Bundle, Fingerprint, Program
from ltx_run.errors import BadCluster, BundleInvalid, ProgramMismatch
from ltx_run.machine import Machine, largest
from ltx_run.peers import ALONE, Peers
from ltx_run.plan import Step, programs_of
from ltx_run.platforms import Obstacle, obstacles, platform, uneven


def needed_programs(stages: Iterable[Iterable[Step]]) -> tuple[str, ...]:
    """Programs in order of first use."""
    return tuple(dict.fromkeys(name for stage in stages for step in stage for name in programs_of(step)))


def wide(manifest: Bundle, plan: Iterable[Step]) -> frozenset[str]:
    """Those programs of a plan that span the devices of all processes.

    Raises:
        BadCluster: There are none.
    """
    needed = {name: manifest.programs[name].fingerprint for name in needed_programs([plan])}
    counts = largest(needed.values())
    found = frozenset(name for name, each in needed.items() if 1 < each.devices == counts[each.platform])
    if not found:
        raise BadCluster(
            "no program that this needs spans several devices, so that processes have nothing to share",
            hint="start it as one process",
        )
    return found


def substitutes(manifest: Bundle, names: Iterable[str], peers: Peers = ALONE) -> dict[str, Fingerprint]:
    """Programs whose executables don't fit this machine and that it can compile itself, and what for."""
    found = {}
    for name in names:
        program = manifest.programs[name]
        if program.portable is not None and obstacles(program.fingerprint, peers):
            target = platform(program.fingerprint.platform).native(program.fingerprint, peers)
            if isinstance(target, Fingerprint):
                found[name] = target
    return found


def check_fingerprints(
    manifest: Bundle,
    names: Collection[str],
    peers: Peers = ALONE,
    compiles: Mapping[str, Fingerprint] | None = None,
) -> None:
    """Refuse programs that this machine can't execute together with its peers.

    Args:
        manifest: Of the bundle.
        names: Programs that will run.
        peers: The processes that run them.
        compiles: What `substitutes` found; None if nothing may be compiled.

    Raises:
        ProgramMismatch: Says for each reason which programs it stops, with both values.
    """
    stopped: dict[Obstacle, list[str]] = {}
    counts = largest(manifest.programs[name].fingerprint for name in names)
    for name in names:
        needed = manifest.programs[name].fingerprint
        found = () if compiles and name in compiles else obstacles(needed, peers)
        for obstacle in (*found, *uneven(needed, counts[needed.platform], peers)):
            stopped.setdefault(obstacle, []).append(name)
    if stopped:
        raise _mismatch(manifest, stopped, may_compile=compiles is not None)


def _mismatch(
    manifest: Bundle, stopped: Mapping[Obstacle, Collection[str]], *, may_compile: bool
) -> ProgramMismatch:
    """What to tell a user whose machine the bundle isn't for."""
    lines = (f"{', '.join(programs)}: {obstacle.reason}" for obstacle, programs in stopped.items())
    advice = list(dict.fromkeys(obstacle.advice for obstacle in stopped))
    programs = (manifest.programs[name] for names in stopped.values() for name in names)
    if not may_compile and all(program.portable is not None for program in programs):
        advice.append("or compile its portable form here, which can take minutes once: --allow-compile")
    return ProgramMismatch(
        f"bundle {manifest.name} was built for another machine:\n  " + "\n  ".join(lines),
        hint="; ".join(advice),
    )


def files(
    manifest: Bundle, names: Iterable[str], machine: Machine, compiles: Collection[str]
) -> Iterator[tuple[str, Blob]]:
    """What this process reads for programs, and what each file is for."""
    for name in names:
        program = manifest.programs[name]
        yield f"program {name}", code(program, compiled=name in compiles)
        if program.weights is None:
            continue
        if program.weights not in manifest.weights:
            raise BundleInvalid(f"program {name} uses weight set {program.weights}, which the bundle lacks")
        weights = manifest.weights[program.weights]
        ranks = machine.ranks(program.fingerprint.platform, len(weights.ranks))
        for blob in (*(weights.ranks[rank] for rank in ranks), *([weights.shared] if weights.shared else [])):
            yield f"weights {program.weights}", blob


def code(program: Program, *, compiled: bool) -> Blob:
    """The file of a program: its executable, or what it is compiled from here."""
    return program.portable.module if compiled and program.portable else program.executable
