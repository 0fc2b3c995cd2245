"""Carrying out a plan: shard weights, compile programs, publish the bundle.

Weights are sharded in this process while compile processes work beside it. Each result is published by
itself as soon as it is complete, so an interrupted build goes on where it stopped; the bundle's name moves
last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ltx_cache.blobref import BlobRef
from ltx_cache.store import Hit, Store
from ltx_run.bundle import Blob, Program, WeightSet, codes
from ltxbuild.compiler.workers import WorkerPool
from ltxbuild.errors import BuildFailed, ToolMissing
from ltxbuild.plan.planner import BuildPlan, PlannedProgram, PlannedWeights, program_record
from ltxbuild.plan.results import as_form, look_up
from ltxbuild.targets import target
from ltxbuild.weights.checkpoint import Checkpoint, validate
from ltxbuild.weights.sharder import shard


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
    """Programs and weight sets by name."""

    programs: dict[str, Program]
    weights: dict[str, WeightSet]


def build(
    plan: BuildPlan,
    checkpoint: Checkpoint | None,
    store: Store,
    progress: Progress,
    *,
    jobs: int,
    only: set[str],
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
        ToolMissing: A compiler is not installed; everything else is complete and kept.
        LtxError: The checkpoint or the store can't be used.
    """
    wanted = [item for name, item in plan.programs.items() if not only or name in only]
    weights = [] if checkpoint is None or only else list(plan.weights.values())
    missing = [item for item in wanted if item.record is None]
    unsharded = [item for item in weights if item.record is None]
    files = _source_files(plan, checkpoint, unsharded) if checkpoint else {}
    programs = {item.spec.id: item.record for item in wanted if item.record}
    sharded = {item.name: item.record for item in weights if item.record}

    # Those that wait for a compiler of their own hold up no other.
    apart = sum(target(item.placement.platform).assembler is not None for item in missing)
    with WorkerPool(jobs, store) as pool, ThreadPoolExecutor(max_workers=jobs + apart) as threads:
        try:
            pending = {
                item.spec.id: threads.submit(_compile, plan, item, pool, store, progress) for item in missing
            }
            for item in unsharded:
                sharded[item.name] = _shard(item, plan, files[item.name], store, progress)
            programs |= _gather(pending)
        except BaseException:  # an interrupt, too: threads that were left alone would build to the end
            threads.shutdown(wait=False, cancel_futures=True)
            pool.close()
            raise
    return Built(programs, sharded)


def _source_files(
    plan: BuildPlan, checkpoint: Checkpoint, weights: Sequence[PlannedWeights]
) -> dict[str, dict[str, Path]]:
    """For each weight set, the file of each checkpoint key; every file is validated before any is used."""
    sources = {item.name: checkpoint.source_of(item.name) for item in weights}
    files = {source: validate(source, plan.tables) for source in dict.fromkeys(sources.values())}
    return {name: files[source] for name, source in sources.items()}


def _gather(pending: Mapping[str, Future[Program]]) -> dict[str, Program]:
    """Wait for all compiles; failures are reported together, after everything else is done."""
    done: dict[str, Program] = {}
    failures: list[BuildFailed] = []
    lacking: dict[str, ToolMissing] = {}
    for name, future in pending.items():
        try:
            done[name] = future.result()
        except BuildFailed as failure:
            failures.append(failure)
        except ToolMissing as missing:
            lacking[name] = missing
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise BuildFailed("\n".join(failure.message for failure in failures), hint=failures[0].hint)
    if lacking:
        first = next(iter(lacking.values()))
        raise ToolMissing(f"{first.message}; it is needed for {', '.join(lacking)}", hint=first.hint)
    return done


def _compile(
    plan: BuildPlan, item: PlannedProgram, pool: WorkerPool, store: Store, progress: Progress
) -> Program:
    name = item.spec.id
    # One process builds a key, the others then find it.
    with store.lock(f"build-{item.key.digest}", cancelled=pool.closed.is_set):
        found = look_up(store, item.key, Program)
        if isinstance(found, Hit):
            return program_record(found, item.spec)
        progress.start(name, None)
        try:
            result = _made(plan, item, pool, store)
        except ToolMissing:
            apart = target(item.placement.platform).assembler
            progress.finish(name, "lowered and kept, not compiled" if apart else "not compiled")
            raise
        program = _record(item, result)
        blobs = [BlobRef(blob.sha256, blob.size) for blob in codes(program)]
        store.put_entry(item.key, msgspec.to_builtins(program), blobs)
    seconds = result["seconds"]
    how = "reused an equal program" if result["reused"] else f"compile {seconds['compile']:.1f} s"
    progress.finish(name, f"lower {seconds['lower']:.1f} s, {how}")
    return program


def _made(plan: BuildPlan, item: PlannedProgram, pool: WorkerPool, store: Store) -> Mapping[str, Any]:
    """The executable, and what its record says beside what the plan knows."""
    name, placement = item.spec.id, item.placement
    chosen = target(placement.platform)
    if chosen.assembler is None:
        chosen.check()
        return pool.compile(name, _job(plan, item), chosen.environment(placement.target, placement.devices))
    assemble = import_module(chosen.assembler).assemble
    return assemble(name, item.key, store, lambda: lowered(plan, item, pool), pool.closed)  # type: ignore[no-any-return]


def lowered(plan: BuildPlan, item: PlannedProgram, pool: WorkerPool) -> dict[str, Any]:
    """What the compile process makes for a compiler of its own, whose flags and version say nothing there."""
    placement = item.placement
    job = _job(plan, item)
    job |= {"flags": {}, "compiler": {**job["compiler"], "sources": item.key.values["sources"]}}
    environment = target(placement.platform).environment(placement.target, placement.devices)
    return pool.compile(item.spec.id, job, environment)


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
        "forms": item.forms.json(),
        "mesh": placement.mesh,
        "rules": placement.rules,
        "backend": target(placement.platform).backend,
        "target": placement.target,
        "flags": placement.flags,
        "portable": item.key.values["portable"],
        "compiler": {factor.name: factor.value for factor in item.key.factors}["compiler"],
    }


def _record(item: PlannedProgram, result: Mapping[str, Any]) -> Program:
    placement = item.placement
    fingerprint = {
        "platform": placement.platform,
        "runtime": result["runtime"],
        "features": result["features"],
        "devices": placement.devices,
    }
    own = {"mesh": list(placement.mesh.items()), "weights": item.spec.weights, "key": item.key.digest}
    parts = {name: result[name] for name in ("executable", "inputs", "outputs", "memory", "flops")}
    parts |= {name: result.get(name) for name in ("census", "portable")}
    return as_form({**parts, **own, "fingerprint": fingerprint}, Program)


def _shard(
    item: PlannedWeights, plan: BuildPlan, files: Mapping[str, Path], store: Store, progress: Progress
) -> WeightSet:
    assert item.key is not None
    task = f"weights {item.name}"
    with store.lock(f"build-{item.key.digest}"):
        found = look_up(store, item.key, WeightSet)
        if isinstance(found, Hit):
            return as_form(found.value, WeightSet)
        placement = item.placement
        progress.start(task, item.bytes_per_device * placement.devices)
        result = shard(
            item.table,
            files,
            placement.rules,
            placement.mesh,
            plan.recipe.precision,
            store,
            lambda amount: progress.advance(task, amount),
            item.loras,
            item.key,
        )
        weights = WeightSet(
            shared=_blob(result.shared) if result.shared else None,
            ranks=tuple(_blob(ref) for ref in result.ranks),
            key=item.key.digest,
        )
        blobs = [*result.ranks, *([result.shared] if result.shared else [])]
        store.put_entry(item.key, msgspec.to_builtins(weights), blobs)
    progress.finish(task, f"{len(blobs)} file{'s' * (len(blobs) != 1)}")
    return weights


def _blob(ref: BlobRef) -> Blob:
    return Blob(sha256=ref.sha256, size=ref.size)
