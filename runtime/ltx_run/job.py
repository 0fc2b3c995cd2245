"""Requests checked against a bundle and this machine, before the first program is loaded.

A run makes a list of requests for one variant of one bundle; a single prompt is a list of one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from numpy.typing import NDArray

from ltx_cache.key import Key
from ltx_run import conditioning, contexts, flow, guidance, tensors
from ltx_run.bundle import Blob, Bundle
from ltx_run.contexts import PromptCache
from ltx_run.errors import BadCluster, BadPrompt, BadVariant, BundleInvalid, ProgramMismatch
from ltx_run.lookup import OpenBundle
from ltx_run.machine import Machine, largest
from ltx_run.peers import ALONE, Peers
from ltx_run.plan import Plan, Step, Tokenize, WriteVideo, programs_of
from ltx_run.platforms import Obstacle, obstacles, uneven
from ltx_run.request import Request, each
from ltx_run.tokens import PromptTokenizer

Stage = tuple[Step, ...]
Prompts = tuple[tuple[int, ...], ...]
"""Token ids of the prompts of a job."""


@dataclass(frozen=True)
class Job:
    """A request that was found sound.

    Attributes:
        request: The request.
        plan: The steps of the variant's plan that it needs.
        given: Tensors from outside, those of images, and those that the prompt cache has.
        ids: Token ids of each prompt, not padded; none if no step needs them.
        key: Where the prompt cache has, or is to keep, what follows from the prompts; None if it is not used.
        remembered: Whether it had it.
    """

    request: Request
    plan: Plan
    given: Mapping[str, NDArray[Any]]
    ids: Prompts
    key: Key | None = None
    remembered: bool = False


@dataclass(frozen=True)
class Batch:
    """Jobs that run together, stage by stage.

    Attributes:
        bundle: The bundle.
        variant: Name of the variant.
        jobs: At least one.
        stages: Steps that any job needs, grouped by what runs together.
        cache: Where the results of prompts are kept; None if they are not.
        machine: The devices for all of it.
    """

    bundle: OpenBundle
    variant: str
    jobs: tuple[Job, ...]
    stages: tuple[Stage, ...]
    cache: PromptCache | None
    machine: Machine

    @property
    def plan(self) -> Plan:
        """All steps of the variant."""
        return self.bundle.manifest.variants[self.variant].plan

    def stages_of(self, job: Job) -> tuple[Stage, ...]:
        """Per stage, the steps that a job needs."""
        return tuple(tuple(step for step in stage if step in job.plan) for stage in self.stages)


def prepare(
    requests: Sequence[Request],
    bundle: OpenBundle,
    prompt_cache: PromptCache | None = None,
    peers: Peers = ALONE,
) -> Batch:
    """Check requests against a bundle and this machine.

    Args:
        requests: For one variant; at least one.
        bundle: The bundle.
        prompt_cache: Where results of prompts are looked up and kept; None to do neither.
        peers: The processes that run the programs together.

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
        unwanted = _unwanted(request, plan)
        needed = flow.needed(plan, given, unwanted)
        if peers.count > 1:
            wide = _wide(manifest, needed)
            needed = needed if request.writes else flow.shared(needed, given, wide)
        _check_negative(request, plan)
        job = Job(request, needed, given, _token_ids(request, needed, tokenizer))
        if prompt_cache is None or not job.ids or not contexts.results(plan).isdisjoint(given):
            return job
        key = contexts.key(manifest, plan, job.ids)
        found = prompt_cache.find(key)
        if found is None:
            return replace(job, key=key)
        given |= found
        return Job(request, flow.needed(plan, given, unwanted), given, job.ids, key, remembered=True)

    bundle.require([("tokenizer", manifest.tokenizer)])
    jobs = tuple(each(requests, check))
    stages = flow.stages(tuple(step for step in plan if any(step in job.plan for job in jobs)))
    names = needed_programs(stages)
    check_fingerprints(manifest, names, peers)
    machine = Machine((manifest.programs[name].fingerprint for name in names), peers)
    bundle.require(_files(manifest, names, machine))
    return Batch(bundle, variant, jobs, stages, prompt_cache, machine)


def identity(batch: Batch) -> str:
    """Text that is the same in all processes that make the same videos."""
    jobs = [
        (
            job.ids,
            job.request.seed,
            {name: hashlib.sha256(value.tobytes()).hexdigest() for name, value in sorted(job.given.items())},
            job.request.wants_pictures,
            job.request.wants_sound,
        )
        for job in batch.jobs
    ]
    return repr((batch.bundle.digest, batch.variant, jobs))


def _wide(manifest: Bundle, plan: Plan) -> frozenset[str]:
    """Those programs of a plan that span the devices of all processes.

    Raises:
        BadCluster: There are none.
    """
    needed = {name: manifest.programs[name].fingerprint for name in needed_programs([plan])}
    counts = largest(needed.values())
    wide = (name for name, each in needed.items() if 1 < each.devices == counts[each.platform])
    found = frozenset(wide)
    if not found:
        raise BadCluster(
            "no program that this needs spans several devices, so that processes have nothing to share",
            hint="start it as one process",
        )
    return found


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


def check_fingerprints(manifest: Bundle, names: Collection[str], peers: Peers = ALONE) -> None:
    """Refuse programs that this machine can't execute together with its peers.

    Raises:
        ProgramMismatch: Says for each reason which programs it stops, with both values.
    """
    stopped: dict[Obstacle, list[str]] = {}
    counts = largest(manifest.programs[name].fingerprint for name in names)
    for name in names:
        needed = manifest.programs[name].fingerprint
        for obstacle in (*obstacles(needed, peers), *uneven(needed, counts[needed.platform], peers)):
            stopped.setdefault(obstacle, []).append(name)
    if stopped:
        lines = (f"{', '.join(programs)}: {obstacle.reason}" for obstacle, programs in stopped.items())
        raise ProgramMismatch(
            f"bundle {manifest.name} was built for another machine:\n  " + "\n  ".join(lines),
            hint="; ".join(dict.fromkeys(obstacle.advice for obstacle in stopped)),
        )


def _files(manifest: Bundle, programs: Iterable[str], machine: Machine) -> Iterable[tuple[str, Blob]]:
    """What this process reads for programs."""
    for name in programs:
        program = manifest.programs[name]
        yield f"program {name}", program.executable
        if program.weights is None:
            continue
        if program.weights not in manifest.weights:
            raise BundleInvalid(f"program {name} uses weight set {program.weights}, which the bundle lacks")
        weights = manifest.weights[program.weights]
        ranks = machine.ranks(program.fingerprint.platform, len(weights.ranks))
        for blob in (*(weights.ranks[rank] for rank in ranks), *([weights.shared] if weights.shared else [])):
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
