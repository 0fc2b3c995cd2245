"""Running a batch: stage by stage for all jobs, so that each program is loaded once for all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ltx_cache.errors import LtxError
from ltx_run import contexts, flow, residency, tensors
from ltx_run.demands import needed_programs
from ltx_run.errors import OutputError, ProgramFailed
from ltx_run.interpreter import Interpreter
from ltx_run.job import Batch, Job, Prompts, Stage
from ltx_run.plan import WriteVideo, programs_of
from ltx_run.programs import Programs
from ltx_run.report import Observer, Report, VideoReport

OF_ONE_JOB = (ProgramFailed, OutputError, OSError)
"""Errors that say nothing about the other jobs; every other error of a run stops all of them."""


def run(batch: Batch, observer: Observer) -> Report:
    """Make the videos; what one job fails with is in the report and doesn't stop the others.

    Raises:
        LtxError: Nothing was made, since a file is damaged, or a program fails.
        OSError: Nothing was made, since an output can't be written.
    """
    started = time.perf_counter()
    names = needed_programs(batch.stages)
    residency.check({name: batch.bundle.manifest.programs[name] for name in names}, batch.machine)
    with Programs(batch.bundle, batch.machine, batch.compiles) as programs:
        runner = Runner(batch, programs, observer)
        runner.run()
        runner.save()
    if len(runner.errors) == len(batch.jobs):
        raise runner.errors[0]
    return Report(
        bundle=batch.bundle.where,
        digest=batch.bundle.digest,
        variant=batch.variant,
        seconds=time.perf_counter() - started,
        programs=list(programs.reports.values()),
        videos=[runner.report(number) for number, job in enumerate(batch.jobs) if job.request.writes],
    )


class Runner:
    """One run of a batch.

    Attributes:
        errors: By number of the job, what it failed with.
        lost: By number of the job, why its tensors could not be saved.
    """

    def __init__(self, batch: Batch, programs: Programs, observer: Observer) -> None:
        self.errors: dict[int, LtxError | OSError] = {}
        self.lost: dict[int, OSError] = {}
        self._batch = batch
        self._programs = programs
        self._observer = observer
        self._jobs = [Interpreter(job, batch, programs, observer) for job in batch.jobs]
        self._results = contexts.results(batch.plan)
        self._kept: dict[str, str] = {}
        self._from_prompts = flow.from_prompts([step for stage in batch.stages for step in stage])

    def run(self) -> None:
        """Do every stage for every job; what is no longer needed goes after each stage."""
        stages = self._batch.stages
        needs = [tuple(name for step in stage for name in programs_of(step)) for stage in stages]
        for index in range(len(stages)):
            later = [name for names in needs[index + 1 :] for name in names]
            self._programs.read_ahead([*needs[index], *_first(needs[index + 1 :])])
            self._stage(index)
            self._programs.release(later)
            if len(self.errors) == len(self._jobs):
                return

    def _stage(self, index: int) -> None:
        running = {number: job for number, job in enumerate(self._jobs) if number not in self.errors}
        parts = sum(job.parts(index) for job in running.values())
        if parts:
            self._observer.start(_label(self._batch.stages[index]), parts)
        made: dict[Prompts, Interpreter] = {}
        for number, job in running.items():
            try:
                self._do(job, index, made)
            except OF_ONE_JOB as error:
                if self._batch.machine.peers.count > 1:
                    raise  # the others would go on with the job, and wait for this process
                self._fail(job, number, error)
            except LtxError as error:
                for other, failing in enumerate(self._jobs):
                    self._fail(failing, other, error)
                break
        if parts:
            self._observer.finish()

    def _do(self, job: Interpreter, index: int, made: dict[Prompts, Interpreter]) -> None:
        """Do a job's steps of a stage, or take what `made` says another job has made from the same prompt."""
        steps = job.stages[index]
        prompt = job.job.ids
        if prompt in made:
            job.borrow(made[prompt], index)
        else:
            job.do(index)
            if steps and all(self._from_prompts.issuperset(step.outputs) for step in steps):
                made[prompt] = job
        self._remember(job)
        job.finish(index, leave_devices=len(self._jobs) > 1)

    def _fail(self, job: Interpreter, number: int, error: LtxError | OSError) -> None:
        if number not in self.errors and not job.done:
            self.errors[number] = error
            job.stop()

    def _remember(self, job: Interpreter) -> None:
        """Keep what follows from a job's prompt, as soon as all of it is there."""
        cache, key = self._batch.cache, job.job.key
        if cache is None or key is None or job.job.remembered or key.digest in self._kept:
            return
        values = job.on_host(self._results)
        if values is not None:
            try:
                cache.keep(key, values)
                self._kept[key.digest] = "stored"
            except LtxError as error:
                self._kept[key.digest] = f"not stored: {error.message}"

    def _prompt_cache(self, job: Job) -> str:
        if self._batch.cache is None:
            return "off"
        if job.key is None:
            return "unused"
        return (
            "hit" if job.remembered else self._kept.get(job.key.digest, "not stored: not all of it was made")
        )

    def save(self) -> None:
        """Write the tensors that users asked for; if that fails, the videos are there all the same."""
        for number, job in enumerate(self._jobs):
            if number not in self.errors and job.job.request.tensors_out:
                try:
                    tensors.write(job.job.request.tensors_out, job.kept)
                except OSError as error:
                    self.lost[number] = error

    def report(self, number: int) -> VideoReport:
        """What became of a job."""
        job, error, lost = self._jobs[number], self.errors.get(number), self.lost.get(number)
        return VideoReport(
            output=str(job.job.request.output),
            prompt=job.job.request.prompt,
            seed=job.job.request.seed,
            frames=job.frames,
            kept=[] if lost else sorted(job.kept),
            prompt_cache=self._prompt_cache(job.job),
            error=str(error) if error else None,
            tensors_error=str(lost) if lost else None,
        )


def _label(stage: Stage) -> str:
    """What the observer calls a stage."""
    if any(isinstance(step, WriteVideo) for step in stage):
        return "decode and write"
    return next((name for step in stage for name in programs_of(step)), "")


def _first(needs: Sequence[Sequence[str]]) -> Sequence[str]:
    """Programs of the next stage that has any."""
    return next((names for names in needs if names), ())
