"""What a run reports: to a watching observer while it runs, as a record when it is done."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ltx_run.bundle import Memory


class Observer(Protocol):
    """Told what a run does."""

    def start(self, label: str, total: int) -> None:
        """A stage begins; it has `total` parts."""

    def advance(self) -> None:
        """One part of the stage is done."""

    def finish(self) -> None:
        """The stage is done."""


class ProgramReport(msgspec.Struct):
    """What one program cost.

    Attributes:
        name: Program.
        calls: Times it ran.
        compile_seconds: Compiling it here, if its executable didn't fit and no earlier run had done so.
        load_seconds: Verifying, loading and mapping, most of it beside other work.
        wait_seconds: What of both the run had to wait for.
        run_seconds: Executing.
        fastest_seconds: The fastest call.
        first_done: When its first call was done, in seconds since 1970.
        peak_bytes: Peak memory of the process while it was loaded and ran, mapped weights included.
        memory: Bytes per device, from the compiler.
        flops: Floating-point operations of one call, from the compiler.
    """

    name: str
    memory: Memory
    flops: float
    calls: int = 0
    compile_seconds: float = 0.0
    load_seconds: float = 0.0
    wait_seconds: float = 0.0
    run_seconds: float = 0.0
    fastest_seconds: float = 0.0
    first_done: float = 0.0
    peak_bytes: int = 0


class VideoReport(msgspec.Struct):
    """What became of one job.

    Attributes:
        output: Path of the video.
        prompt: None if it was not needed.
        seed: Of the noise.
        frames: In the video.
        kept: Names of the tensors that were saved.
        prompt_cache: What became of the prompt's contexts: `hit`, `stored`, `not stored: WHY`, `unused` (the
            prompt was not encoded), `off`.
        error: Why there is no video; None if there is.
        tensors_error: Why its tensors were not saved; None if they were, or nobody asked for them.
    """

    output: str
    prompt: str | None
    seed: int
    frames: int
    kept: list[str]
    prompt_cache: str
    error: str | None
    tensors_error: str | None


class Report(msgspec.Struct):
    """What a run did.

    Attributes:
        bundle: What the user named.
        digest: sha256 of its manifest.
        variant: Output geometry.
        seconds: From the first load to the last finished file.
        programs: In order of first use.
        videos: One per job.
    """

    bundle: str
    digest: str
    variant: str
    seconds: float
    programs: list[ProgramReport]
    videos: list[VideoReport]
