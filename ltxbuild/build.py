"""Carrying out a plan: shard weights, compile programs, publish the bundle.

Weights are sharded in this process while compile processes work beside it. Each result is published by
itself as soon as it is complete, so an interrupted build goes on where it stopped; the bundle's name moves
last.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ltx_cache.store import BlobRef, Hit, Store
from ltx_run.fingerprint import runtime_version
from ltxbuild.bundler import weight_record
from ltxbuild.checkpoint import Checkpoint, validate
from ltxbuild.components import COMPONENTS
from ltxbuild.errors import BuildFailed
from ltxbuild.planner import BuildPlan, PlannedProgram, PlannedWeights
from ltxbuild.sharder import shard
from ltxbuild.worker import environment
from ltxbuild.workers import WorkerPool


class Progress(Protocol):
    """What a build reports while it runs."""

    def start(self, task: str, total: int | None) -> None:
        """A task begins; `total` is in bytes, None when it can't be known."""

    def advance(self, task: str, amount: int) -> None:
        """Bytes of a task are done."""

    def finish(self, task: str, detail: str) -> None:
        """A task is complete."""


@dataclass(frozen=True)
class Built:
    """Results by name: the values of the store's entries."""

    programs: dict[str, Mapping[str, Any]]
    weights: dict[str, Mapping[str, Any]]


def build(
    plan: BuildPlan, checkpoint: Checkpoint | None, store: Store, progress: Progress, *, jobs: int, only: set[str]
) -> Built:
    """Make everything a plan misses.

    Args:
        plan: What to build.
        checkpoint: Source of the weights; None builds programs only.
        store: Where results go.
        progress: Told what happens.
        jobs: Compile processes.
        only: Programs to build; empty for all.

    Raises:
        BuildFailed: Programs that did not compile; everything else is complete and kept.
        LtxError: The checkpoint or the store can't be used.
    """
    wanted = {name: item for name, item in plan.programs.items() if not only or name in only}
    missing = {name: item for name, item in wanted.items() if not isinstance(item.found, Hit)}
    weights = {} if checkpoint is None or only else plan.weights
    unsharded = {name: item for name, item in weights.items() if not isinstance(item.found, Hit)}
    files = validate(checkpoint, plan.config) if checkpoint and unsharded else {}
    programs = {name: item.found.value for name, item in wanted.items() if isinstance(item.found, Hit)}
    sharded = {name: item.found.value for name, item in weights.items() if isinstance(item.found, Hit)}

    isa, devices = plan.recipe.target.isa, max((item.placement.devices for item in missing.values()), default=1)
    with (
        WorkerPool(jobs, store.root, environment(isa, devices), store.root / "logs") as pool,
        ThreadPoolExecutor(max_workers=jobs) as threads,
    ):
        pending = {
            name: threads.submit(_compile, plan, item, pool, store, progress) for name, item in missing.items()
        }
        for name, item in unsharded.items():
            sharded[name] = _shard(name, item, plan, files, store, progress)
        programs |= _gather(pending)
    return Built(programs, sharded)


def _gather(pending: Mapping[str, Future[Mapping[str, Any]]]) -> dict[str, Mapping[str, Any]]:
    """Wait for all compiles; failures are reported together, after everything else is done."""
    done, failures = {}, []
    for name, future in pending.items():
        try:
            done[name] = future.result()
        except BuildFailed as failure:
            failures.append(failure)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise BuildFailed("\n".join(failure.message for failure in failures), hint=failures[0].hint)
    return done


def _compile(
    plan: BuildPlan, item: PlannedProgram, pool: WorkerPool, store: Store, progress: Progress
) -> Mapping[str, Any]:
    name = item.spec.id
    with _building(store, item.key.digest):
        found = store.lookup(item.key)
        if isinstance(found, Hit):
            return found.value
        progress.start(name, None)
        result = pool.compile(name, _job(plan, item))
        value = _program_record(item, result)
        executable = BlobRef(**result["executable"])
        store.put_entry(item.key, value, [executable])
    seconds = result["seconds"]
    how = "reused an equal program" if result["reused"] else f"compile {seconds['compile']:.1f} s"
    progress.finish(name, f"lower {seconds['lower']:.1f} s, {how}")
    return value


def _building(store: Store, digest: str) -> Any:
    """Let one process at a time build a key; the others wait and then find it."""
    return store.lock(f"build-{digest}")


def _job(plan: BuildPlan, item: PlannedProgram) -> dict[str, Any]:
    config, placement, recipe = plan.config, item.placement, plan.recipe
    return {
        "spec": {
            "id": item.spec.id,
            "kind": item.spec.kind,
            "component": item.spec.component,
            "geometry": [list(pair) for pair in item.spec.geometry],
        },
        "config": {
            "ltx": config.ltx.model_dump(mode="json"),
            "gemma": config.gemma.model_dump(mode="json"),
            "upsampler": config.upsampler.model_dump(mode="json") if config.upsampler else None,
        },
        "precision": recipe.precision,
        "layers": recipe.layers,
        "attention": item.attention,
        "mesh": placement.mesh,
        "rules": placement.rules,
        "target": placement.target,
        "flags": placement.flags,
        "compiler": {factor.name: factor.value for factor in item.key.factors}["compiler"],
    }


def _program_record(item: PlannedProgram, result: Mapping[str, Any]) -> dict[str, Any]:
    """The bundle's record of a program, without its weight set's name."""
    placement = item.placement
    return {
        "executable": result["executable"],
        "fingerprint": {
            "platform": placement.platform,
            "runtime": runtime_version(),
            "features": placement.target["features"],
            "devices": placement.devices,
        },
        "inputs": result["inputs"],
        "outputs": result["outputs"],
        "mesh": placement.mesh,
        "weights": item.spec.component,
        "key": item.key.digest,
        "memory": result["memory"],
        "flops": result["flops"],
    }


def _shard(
    name: str, item: PlannedWeights, plan: BuildPlan, files: Mapping[str, Path], store: Store, progress: Progress
) -> Mapping[str, Any]:
    assert item.key is not None
    with _building(store, item.key.digest):
        found = store.lookup(item.key)
        if isinstance(found, Hit):
            return found.value
        total = item.bytes_per_device * max(item.placement.devices, 1)
        task = f"weights {name}"
        progress.start(task, total)
        placement = item.placement
        table = COMPONENTS[name].table(plan.config)
        result = shard(
            table, files, placement.rules, placement.mesh, plan.recipe.precision, store,
            lambda amount: progress.advance(task, amount),
        )
        value = weight_record(result, item.key)
        blobs = [*result.ranks, *([result.shared] if result.shared else [])]
        store.put_entry(item.key, value, blobs)
    progress.finish(task, f"{len(blobs)} file{'s' * (len(blobs) != 1)}")
    return value
