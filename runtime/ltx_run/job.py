"""Everything that is checked before the first program is loaded.

What a user asks for is a list of requests for one variant of one bundle; a single prompt is a list of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from ltx_cache.errors import LtxError
from ltx_run import conditioning, flow, guidance, outputs, tensors
from ltx_run.bundle import Blob, Bundle
from ltx_run.conditioning import GivenImage
from ltx_run.errors import (
    BadPrompt,
    BadRequests,
    BadVariant,
    BundleInvalid,
    OutputError,
    ProgramMismatch,
)
from ltx_run.fingerprint import obstacles
from ltx_run.lookup import OpenBundle
from ltx_run.plan import Plan, Step, Tokenize, WriteVideo, programs_of
from ltx_run.tokens import PromptTokenizer

T = TypeVar("T")
Stage = tuple[Step, ...]
Prompts = tuple[tuple[int, ...], ...]
"""Token ids of the prompts of a job."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks for.

    Attributes:
        prompt: None if the tensors given make it needless.
        output: Path of the video; its suffix says what is written.
        seed: Of the noise.
        variant: None to choose: the only one, or the one named `default`.
        tensors_in: File of tensors to take instead of computing them.
        tensors_out: File for the tensors of `tensors.KEPT` that the run makes.
        directory: Whether the output is a directory of PNG files, which may not exist yet.
        audio: Whether there is to be sound.
        contact_sheet: A PNG file for frames of the whole video.
        where: What messages name in front of the rest, such as a line of a file; may be empty.
        images: What the video is made from beside the prompt.
        negative_prompt: What it shall not be like; None for the recipe's.
        scales: Guidance scales by name, where they differ from the recipe's.
    """

    prompt: str | None
    output: Path
    seed: int
    variant: str | None = None
    tensors_in: Path | None = None
    tensors_out: Path | None = None
    directory: bool = False
    audio: bool = True
    contact_sheet: Path | None = None
    where: str = ""
    images: tuple[GivenImage, ...] = ()
    negative_prompt: str | None = None
    scales: Mapping[str, float] = field(default_factory=dict)

    @property
    def kind(self) -> outputs.Kind:
        """What is written.

        Raises:
            OutputError: The output has an unknown suffix.
        """
        return outputs.kind_of(self.output, directory=self.directory)

    @property
    def wants_pictures(self) -> bool:
        """Whether any output shows pictures."""
        return self.kind.pictures or self.contact_sheet is not None

    @property
    def wants_sound(self) -> bool:
        """Whether the output has sound."""
        return self.kind.sound and self.audio


@dataclass(frozen=True)
class Job:
    """A request that was found sound.

    Attributes:
        request: The request.
        plan: The steps of the variant's plan that it needs.
        given: Tensors from outside, and those of images.
        ids: Token ids of each prompt, not padded; none if no step needs them.
    """

    request: Request
    plan: Plan
    given: Mapping[str, NDArray[Any]]
    ids: Prompts


@dataclass(frozen=True)
class Batch:
    """Jobs that run together, stage by stage.

    Attributes:
        bundle: The bundle.
        variant: Name of the variant.
        jobs: At least one.
        stages: Steps that any job needs, grouped by what runs together.
    """

    bundle: OpenBundle
    variant: str
    jobs: tuple[Job, ...]
    stages: tuple[Stage, ...]

    @property
    def devices(self) -> int:
        """Devices that the largest program spans."""
        programs = self.bundle.manifest.programs
        used = (programs[name] for name in needed_programs(self.stages))
        return max((program.fingerprint.devices for program in used), default=1)

    def stages_of(self, job: Job) -> tuple[Stage, ...]:
        """Per stage, the steps that a job needs."""
        return tuple(tuple(step for step in stage if step in job.plan) for stage in self.stages)


def check_requests(requests: Sequence[Request]) -> None:
    """What can be said without the bundle.

    Raises:
        OutputError: An output can't be written.
        BadPrompt: A prompt is empty.
        BadRequests: Several requests have something wrong.
    """
    _each(requests, _check_request)
    owners: dict[Path, str] = {}
    for request in requests:
        for path in (request.output, request.contact_sheet):
            if path is not None and owners.setdefault(path.absolute(), request.where) != request.where:
                raise OutputError(f"{owners[path.absolute()]} and {request.where} both write {path}")


def _check_request(request: Request) -> None:
    outputs.check(request.output, request.kind)
    if not request.kind.pictures and not request.audio:
        raise OutputError(f"{request.output} would be empty: it holds sound alone, and there is to be none")
    sheet = request.contact_sheet
    if sheet is not None and sheet.suffix.lower() != outputs.SHEET_SUFFIX:
        raise OutputError(f"cannot write {sheet}: a contact sheet is a {outputs.SHEET_SUFFIX} file")
    for path in (sheet, request.tensors_out):
        if path is not None:
            outputs.check(path)
    if request.prompt is not None and not request.prompt.strip():
        raise BadPrompt("the prompt is empty", hint='describe the video: --prompt "a red ball rolls"')


def _each(requests: Sequence[Request], check: Callable[[Request], T]) -> list[T]:
    """A check's result for every request, or the errors of all, so that they can be mended in one go."""
    results, errors = [], []
    for request in requests:
        try:
            results.append(check(request))
        except LtxError as error:
            if request.where:
                error.message = f"{request.where}: {error.message}"
            errors.append(error)
    if len(errors) > 1:
        listed = (error.message for error in errors)
        raise BadRequests("\n  ".join([f"{len(errors)} prompts can't be used:", *listed]))
    if errors:
        raise errors[0]
    return results


def prepare(requests: Sequence[Request], bundle: OpenBundle) -> Batch:
    """Check requests against a bundle and this machine.

    Args:
        requests: For one variant; at least one.
        bundle: The bundle.

    Raises:
        LtxError: Anything that would stop the run later, as far as it can be known now.
    """
    manifest = bundle.manifest
    variant = choose_variant(manifest, requests[0].variant)
    plan, frames = manifest.variants[variant].plan, manifest.variants[variant].frames
    signatures = flow.signatures(plan, manifest.programs)
    tokenizer = cache(lambda: PromptTokenizer(bundle.path(manifest.tokenizer)))

    def check(request: Request) -> Job:
        given = conditioning.tensors(request.images, plan, signatures, frames)
        given |= guidance.tensors(request.scales, plan)
        given |= tensors.read(request.tensors_in, signatures) if request.tensors_in else {}
        needed = flow.needed(plan, given, _unwanted(request, plan))
        _check_negative(request, plan)
        return Job(request, needed, given, _token_ids(request, needed, tokenizer))

    bundle.require([("tokenizer", manifest.tokenizer)])
    jobs = tuple(_each(requests, check))
    stages = flow.stages(tuple(step for step in plan if any(step in job.plan for job in jobs)))
    names = needed_programs(stages)
    check_fingerprints(manifest, names)
    bundle.require(_files(manifest, names))
    return Batch(bundle, variant, jobs, stages)


def _unwanted(request: Request, plan: Plan) -> frozenset[str]:
    """What the plan would write and the outputs don't take."""
    names: set[str] = set()
    for step in plan:
        if isinstance(step, WriteVideo):
            frames, waveform = step.inputs
            names |= {frames} if not request.wants_pictures else set()
            names |= {waveform} if not request.wants_sound else set()
    return frozenset(names)


def choose_variant(manifest: Bundle, name: str | None) -> str:
    """The variant asked for; else the only one, or the one named `default`.

    Raises:
        BadVariant: There is no such variant, or none was named and there is no default.
    """
    variants = manifest.variants
    if name is None:
        name = next(iter(variants)) if len(variants) == 1 else "default"
    if name not in variants:
        sizes = (f"{k} ({v.width}x{v.height}, {v.frames} frames)" for k, v in variants.items())
        raise BadVariant(f"bundle {manifest.name} has no variant {name}", hint=f"it has: {', '.join(sizes)}")
    return name


def needed_programs(stages: Iterable[Stage]) -> tuple[str, ...]:
    """Programs in order of first use."""
    return tuple(dict.fromkeys(name for stage in stages for step in stage for name in programs_of(step)))


def check_fingerprints(manifest: Bundle, names: Iterable[str]) -> None:
    """Refuse programs that this machine can't execute.

    Raises:
        ProgramMismatch: Says for each reason which programs it stops, with both values.
    """
    stopped: dict[str, list[str]] = {}
    for name in names:
        for reason in obstacles(manifest.programs[name].fingerprint):
            stopped.setdefault(reason, []).append(name)
    if stopped:
        lines = (f"{', '.join(programs)}: {reason}" for reason, programs in stopped.items())
        raise ProgramMismatch(
            f"bundle {manifest.name} was built for another machine:\n  " + "\n  ".join(lines),
            hint=f"rebuild it here, from the recipe named {manifest.name}: ltxbuild compile RECIPE",
        )


def _files(manifest: Bundle, programs: Iterable[str]) -> Iterable[tuple[str, Blob]]:
    for name in programs:
        program = manifest.programs[name]
        yield f"program {name}", program.executable
        if program.weights is None:
            continue
        if program.weights not in manifest.weights:
            raise BundleInvalid(f"program {name} uses weight set {program.weights}, which the bundle lacks")
        weights = manifest.weights[program.weights]
        for blob in (*weights.ranks, *([weights.shared] if weights.shared else [])):
            yield f"weights {program.weights}", blob


def _check_negative(request: Request, plan: Plan) -> None:
    """Refuse a negative prompt that nothing would read."""
    read = {name for step in plan if isinstance(step, Tokenize) for name in step.inputs}
    if request.negative_prompt is not None and flow.NEGATIVE_PROMPT not in read:
        raise BadPrompt(
            "this variant reads no negative prompt: its pipeline is not guided, or cfg is 1 in the recipe",
            hint="leave --negative-prompt out, or compile a guided recipe",
        )


def _token_ids(request: Request, plan: Plan, tokenizer: Callable[[], PromptTokenizer]) -> Prompts:
    steps = [step for step in plan if isinstance(step, Tokenize)]
    if not steps:
        return ()
    if request.prompt is None:
        raise BadPrompt("there is no prompt", hint='describe the video: --prompt "a red ball rolls"')
    given = {flow.PROMPT: request.prompt, flow.NEGATIVE_PROMPT: request.negative_prompt}
    texts = {name: given[name] for name in steps[0].inputs}
    return tuple(
        tuple(
            tokenizer().ids(
                steps[0].defaults[name] if text is None else text,
                steps[0],
                negative=name == flow.NEGATIVE_PROMPT,
            )
        )
        for name, text in texts.items()
    )
