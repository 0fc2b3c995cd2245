"""Requests checked against a bundle and this machine, before the first program is loaded.

A run makes a list of requests for one variant of one bundle; a single prompt is a list of one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from numpy.typing import NDArray

from ltx_cache.key import Key
from ltx_run import conditioning, contexts, flow, guidance, tensors
from ltx_run.bundle import Bundle, Fingerprint
from ltx_run.contexts import PromptCache
from ltx_run.demands import check_fingerprints, files, needed_programs, substitutes, wide
from ltx_run.errors import BadPrompt, BadVariant
from ltx_run.lookup import OpenBundle
from ltx_run.machine import Machine
from ltx_run.peers import ALONE, Peers
from ltx_run.plan import Plan, Step, Tokenize, WriteVideo
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

    def prompts(self, step: Tokenize) -> Prompts:
        """Token ids of the prompts that one of the plan's steps takes."""
        names = _prompt_names(self.plan)
        return tuple(self.ids[names.index(name)] for name in step.inputs)


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
        compiles: Programs that are compiled here, since their executables don't fit: what they are then for.
    """

    bundle: OpenBundle
    variant: str
    jobs: tuple[Job, ...]
    stages: tuple[Stage, ...]
    cache: PromptCache | None
    machine: Machine
    compiles: Mapping[str, Fingerprint]

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
    *,
    allow_compile: bool = False,
) -> Batch:
    """Check requests against a bundle and this machine.

    Args:
        requests: For one variant; at least one.
        bundle: The bundle.
        prompt_cache: Where results of prompts are looked up and kept; None to do neither.
        peers: The processes that run the programs together.
        allow_compile: Whether programs may be compiled here whose executables don't fit.

    Raises:
        LtxError: Anything that would stop the run later, as far as it can be known now.
    """
    manifest = bundle.manifest
    variant = choose_variant(manifest, requests[0].variant)
    plan, frames = manifest.variants[variant].plan, manifest.variants[variant].frames
    signatures = flow.signatures(plan, manifest.programs)
    compiles = substitutes(manifest, needed_programs([plan]), peers) if allow_compile else {}
    tokenizer = cache(lambda: PromptTokenizer(bundle.path(manifest.tokenizer)))

    def check(request: Request) -> Job:
        given = conditioning.tensors(request.images, plan, signatures, frames)
        given |= guidance.tensors(request.scales, plan)
        given |= tensors.read(request.tensors_in, signatures) if request.tensors_in else {}
        unwanted = _unwanted(request, plan)
        needed = flow.needed(plan, given, unwanted)
        if peers.count > 1:
            spanning = wide(manifest, needed)
            needed = needed if request.writes else flow.shared(needed, given, spanning)
        _check_negative(request, plan)
        job = Job(request, needed, given, _token_ids(request, needed, tokenizer))
        if prompt_cache is None or not job.ids or not contexts.results(plan).isdisjoint(given):
            return job
        key = contexts.key(manifest, plan, job.ids, compiles)
        found = prompt_cache.find(key)
        if found is None:
            return replace(job, key=key)
        given |= found
        return Job(request, flow.needed(plan, given, unwanted), given, job.ids, key, remembered=True)

    bundle.require([("tokenizer", manifest.tokenizer)])
    jobs = tuple(each(requests, check))
    stages = flow.stages(tuple(step for step in plan if any(step in job.plan for job in jobs)))
    names = needed_programs(stages)
    check_fingerprints(manifest, names, peers, compiles if allow_compile else None)
    machine = Machine((manifest.programs[name].fingerprint for name in names), peers)
    bundle.require(files(manifest, names, machine, compiles))
    return Batch(bundle, variant, jobs, stages, prompt_cache, machine, compiles)


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


def _check_negative(request: Request, plan: Plan) -> None:
    """Refuse a negative prompt that nothing would read."""
    read = {name for step in plan if isinstance(step, Tokenize) for name in step.inputs}
    if request.negative_prompt is not None and flow.NEGATIVE_PROMPT not in read:
        raise BadPrompt(
            "this variant reads no negative prompt: its pipeline is not guided, or cfg is 1 in the recipe",
            hint="leave --negative-prompt out, or compile a guided recipe",
        )


def _token_ids(request: Request, plan: Plan, tokenizer: Callable[[], PromptTokenizer]) -> Prompts:
    if flow.PROMPT in _prompt_names(plan) and request.prompt is None:
        raise BadPrompt("there is no prompt", hint='describe the video: --prompt "a red ball rolls"')
    given = {flow.PROMPT: request.prompt, flow.NEGATIVE_PROMPT: request.negative_prompt}

    def ids(name: str, step: Tokenize) -> tuple[int, ...]:
        text = given[name]
        text = step.defaults[name] if text is None else text
        return tuple(tokenizer().ids(text, step, negative=name == flow.NEGATIVE_PROMPT))

    return tuple(ids(name, step) for step in plan if isinstance(step, Tokenize) for name in step.inputs)


def _prompt_names(plan: Plan) -> list[str]:
    """Prompts that a plan reads, in order."""
    return [name for step in plan if isinstance(step, Tokenize) for name in step.inputs]
