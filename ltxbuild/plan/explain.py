"""Why a build would do what it would do: per program and weight set hit or miss, and what made it a miss.

A miss is explained by the nearest earlier key, that is the one of the same program or component with the
fewest differing factors; of several the latest. With a bundle to compare against, it is the key in that
bundle.

Example:
    for item in explain(plan, store):
        print(item.name, item.state, *item.differences)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ltx_cache.canonical import canonical
from ltx_cache.key import ABSENT, Absent, Difference, Key, Value, differences
from ltx_cache.store import NO_ENTRY, Hit, Miss, Store
from ltx_run.bundle import Bundle
from ltxbuild.plan.planner import BuildPlan

NO_CHECKPOINT = "no checkpoint"
IDENTITY = {"program": "program", "weights": "component"}
"""The factor that says what a key is for: a key of another program explains nothing."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the store has for one program or weight set.

    Attributes:
        kind: `program` or `weights`.
        name: Name in the plan.
        state: `hit`, `miss` or `no checkpoint`.
        key: Digest of the key; None without a checkpoint.
        reason: Why it is a miss, or why there is nothing to compare with; empty on a plain hit.
        nearest: Digest of the key that it was compared with, if there is one.
        differences: Where the two keys differ, from the earlier one to this one.
    """

    kind: str
    name: str
    state: str
    key: str | None
    reason: str
    nearest: str | None = None
    differences: tuple[Difference, ...] = ()

    def json(self) -> dict[str, Any]:
        """The explanation as JSON; a side of a difference on which the factor is absent has no value."""
        return {
            "state": self.state,
            "key": self.key,
            "reason": self.reason,
            "nearest": self.nearest,
            "differences": [_difference_json(difference) for difference in self.differences],
        }


def explain(plan: BuildPlan, store: Store, against: Bundle | None = None) -> list[Explanation]:
    """Explain every program and weight set of a plan.

    Args:
        plan: The plan.
        store: What it was made against.
        against: Compare with what this bundle was built from, hits too, instead of the nearest keys.

    Raises:
        LtxError: The store can't be read.
    """
    explainer = _Explainer(store, against)
    programs = [explainer.item("program", n, p.key, p.found) for n, p in plan.programs.items()]
    return programs + [explainer.item("weights", n, w.key, w.found) for n, w in plan.weights.items()]


class _Explainer:
    """Reads the entries of a kind once."""

    def __init__(self, store: Store, against: Bundle | None) -> None:
        self._store = store
        self._against = against
        self._keys: dict[str, list[Key]] = {}

    def item(self, kind: str, name: str, key: Key | None, found: Hit | Miss | None) -> Explanation:
        if key is None:
            return Explanation(kind, name, NO_CHECKPOINT, None, "pass a checkpoint to look weights up")
        state, reason = ("miss", found.reason) if isinstance(found, Miss) else ("hit", "")
        if self._against is not None:
            return self._compared(self._against, Explanation(kind, name, state, key.digest, reason), key)
        if reason != NO_ENTRY:  # a hit, or the result is there and broken: other keys have no part in it
            return Explanation(kind, name, state, key.digest, reason)
        other = nearest(key, self._earlier(kind))
        if other is None:
            what = key.values[IDENTITY[kind]]
            return Explanation(kind, name, state, key.digest, f"{reason}, nor any other {what}")
        changes = tuple(differences(other, key))
        return Explanation(kind, name, state, key.digest, reason, other.digest, changes)

    def _compared(self, bundle: Bundle, item: Explanation, key: Key) -> Explanation:
        digest = _key_in(bundle, item.kind, item.name)
        if digest is None:
            reason = f"bundle {bundle.name} has no {item.kind} {item.name}"
            return Explanation(item.kind, item.name, item.state, item.key, reason)
        other = next((other for other in self._earlier(item.kind) if other.digest == digest), None)
        if other is None:
            reason = "the same key" if digest == key.digest else "its factors are not in the cache"
            return Explanation(item.kind, item.name, item.state, item.key, reason, digest)
        changes = tuple(differences(other, key))
        reason = item.reason or ("differs" if changes else "the same key")
        return Explanation(item.kind, item.name, item.state, item.key, reason, digest, changes)

    def _earlier(self, kind: str) -> list[Key]:
        if kind not in self._keys:
            self._keys[kind] = list(self._store.entries(kind))
        return self._keys[kind]


def nearest(key: Key, others: Iterable[Key]) -> Key | None:
    """The key of the same program or component with the fewest differences; the first of several."""
    identity = IDENTITY[key.kind]
    alike = (
        other for other in others if other != key and other.values.get(identity) == key.values.get(identity)
    )
    return min(alike, key=lambda other: len(differences(other, key)), default=None)


def _key_in(bundle: Bundle, kind: str, name: str) -> str | None:
    items: Mapping[str, Any] = bundle.programs if kind == "program" else bundle.weights
    return items[name].key if name in items else None


def _difference_json(difference: Difference) -> dict[str, Any]:
    sides = {"old": difference.old, "new": difference.new}
    return {"factor": difference.name, **{side: v for side, v in sides.items() if v is not ABSENT}}


def rows(items: Iterable[Explanation]) -> Iterator[tuple[str, str, str, str, str]]:
    """Rows of a table: name, state, factor, old value, new value; one per difference."""
    for item in items:
        name = item.name if item.kind == "program" else f"weights {item.name}"
        if not item.differences:
            yield name, item.state, item.reason or "-", "", ""
        for index, (factor, old, new) in enumerate(item.differences):
            head = ("", "") if index else (name, item.state)
            yield *head, factor, shortened(old), shortened(new)


def shortened(value: Value, limit: int = 32) -> str:
    """A factor's value in a table cell; the middle of a long one is left out.

    >>> shortened({"height": 512})
    '{"height":512}'
    >>> shortened("0" * 64)
    '000000000000000…000000000000000'
    """
    if isinstance(value, Absent):
        return "(absent)"
    text = value if isinstance(value, str) else canonical(value).decode()
    half = limit // 2 - 1
    return text if len(text) <= limit else f"{text[:half]}…{text[-half:]}"
