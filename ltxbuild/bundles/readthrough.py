"""Taking programs and weight sets from a remote instead of building them.

A remote's bundles say which key each of their programs and weight sets was made for. What a plan misses under
the same key is received, verified, and entered in the cache as if it had been built. So naming a remote means
to trust it as much as the compiler.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import msgspec

from ltx_cache.address import Address
from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadName, LtxError, MissingBlob
from ltx_cache.key import Key, differences
from ltx_cache.receive import fetch
from ltx_cache.remote import Remote, read_small
from ltx_cache.store import Miss, Store
from ltx_cache.trust import Trust
from ltx_run import offers
from ltx_run.bundle import Blob, Program, WeightSet, codes, files
from ltxbuild.plan.explain import Explanation, nearest
from ltxbuild.plan.planner import BuildPlan

KEY_LIMIT = 4 << 20
Record = Program | WeightSet


@dataclass(frozen=True)
class Taken:
    """What came from a remote, and what didn't.

    Attributes:
        hits: Names of the programs and weight sets that were taken.
        misses: Those that the remote lacks, with the nearest key there.
        notes: Bundles there that could not be read, with the reason.
        size: Bytes received.
    """

    hits: tuple[str, ...]
    misses: tuple[Explanation, ...]
    notes: tuple[str, ...]
    size: int


def read_through(
    plan: BuildPlan, store: Store, source: Address, trust: Trust, only: Collection[str] = ()
) -> Taken:
    """Receive what a plan misses.

    Args:
        plan: The plan; to be made again afterwards.
        store: Where results go.
        source: The remote; if the address names a bundle, only that one is looked at.
        trust: Whose bundles are used.
        only: Programs to receive, without weights; empty for all that the plan misses.

    Raises:
        UnknownBundle: The remote has no bundles, or not the one that is named.
        NotTrusted: No trusted key signed what it has.
        LtxError: The remote or the store can't be used, or the remote sent wrong bytes.
    """
    records, notes = _records(store, source, trust)
    factors: list[Key] | None = None
    hits, misses, size = list[str](), list[Explanation](), 0
    for kind, name, key, found in _missing(plan, only):
        record = records.get((kind, key.digest))
        if record is not None:
            size += _enter(store, source.remote, key, record)
            hits.append(name)
            continue
        if factors is None:
            factors = list(_factors(source.remote, records))
        misses.append(_explained(kind, name, key, found, factors))
    return Taken(tuple(hits), tuple(misses), tuple(notes), size)


def _missing(plan: BuildPlan, only: Collection[str]) -> Iterator[tuple[str, str, Key, Miss]]:
    for name, item in plan.programs.items():
        if isinstance(item.found, Miss) and (not only or name in only):
            yield "program", name, item.key, item.found
    for name, weights in plan.weights.items():
        if isinstance(weights.found, Miss) and weights.key is not None and not only:
            yield "weights", f"weights {name}", weights.key, weights.found


def _records(store: Store, source: Address, trust: Trust) -> tuple[dict[tuple[str, str], Record], list[str]]:
    """Programs and weight sets of a remote's bundles, by kind and key."""
    records: dict[tuple[str, str], Record] = {}
    refused: dict[str, LtxError] = {}
    names = offers.names(source)
    for name in names:
        try:
            bundle = offers.offer(store, source, name, trust).bundle
        except LtxError as error:
            refused[name] = error
            continue
        records |= {("program", program.key): program for program in bundle.programs.values()}
        records |= {("weights", weights.key): weights for weights in bundle.weights.values()}
    if len(refused) == len(names):  # hours of building shall not follow from a missing key
        raise refused[names[0]]
    return records, [f"bundle {name} was left out: {error.message}" for name, error in refused.items()]


def _enter(store: Store, remote: Remote, key: Key, record: Record) -> int:
    """Receive a result and enter it under its key; the number of bytes that travelled."""
    blobs = [BlobRef(blob.sha256, blob.size) for blob in _named(record)]
    _, size = fetch(store, remote, blobs)
    store.put_entry(key, msgspec.to_builtins(record), blobs)
    return size


def _named(record: Record) -> tuple[Blob, ...]:
    return codes(record) if isinstance(record, Program) else files(record)


def _factors(remote: Remote, records: dict[tuple[str, str], Record]) -> Iterator[Key]:
    """The keys of results in a remote, as far as it has their factors."""
    for _, digest in records:
        try:
            data = read_small(remote, digest, KEY_LIMIT)
            key = Key.parse(data) if data is not None else None
        except (MissingBlob, BadName, ValueError, RecursionError):
            continue
        if key is not None and key.digest == digest:
            yield key


def _explained(kind: str, name: str, key: Key, found: Miss, others: list[Key]) -> Explanation:
    near = nearest(key, (other for other in others if other.kind == kind))
    if near is None:
        return Explanation(kind, name, "miss", key.digest, "it has no other of it")
    return Explanation(
        kind, name, "miss", key.digest, found.reason, near.digest, tuple(differences(near, key))
    )
