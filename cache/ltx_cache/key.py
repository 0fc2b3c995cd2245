"""Keys: a list of named factors, kept beside what it names, and hashed.

A factor is anything that can change the result: a compiler version, a geometry, the digest of a source file.
Because the factors themselves are kept, a miss can be explained by the factors in which it differs from an
earlier key.

Example:
    >>> old = Key("program", (Factor("jaxlib", "0.10.2"), Factor("shape", {"height": 512, "width": 768})))
    >>> new = Key("program", (Factor("jaxlib", "0.10.2"), Factor("shape", {"height": 512, "width": 960})))
    >>> old.digest == new.digest
    False
    >>> [str(change) for change in differences(old, new)]
    ['shape.width: 768 -> 960']

Laws: the digest depends on the kind, the names and the values of the factors, and on nothing else (not on
their order, the process or the machine); `differences(a, b) == []` exactly when `a.digest == b.digest`.

Stability: the digest of a key doesn't change within a layout of the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ltx_cache.canonical import JSON, canonical, digest, parse
from ltx_cache.names import checked_name


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """One thing that the result depends on.

    Attributes:
        name: Unique within its key.
        value: Any JSON; a copy is kept, so a later change of the caller's object doesn't reach the key.

    Raises:
        TypeError: The value is not JSON.
        ValueError: The value holds NaN or an infinity, or the name is empty.
    """

    name: str
    value: JSON

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a factor needs a name")
        object.__setattr__(self, "value", parse(canonical(self.value)))

    def __eq__(self, other: object) -> bool:
        # Not by `==` on the values: Python holds 1, 1.0 and True for equal, their JSON differs.
        return isinstance(other, Factor) and canonical([self.name, self.value]) == canonical(
            [other.name, other.value]
        )

    def __hash__(self) -> int:
        return hash(canonical([self.name, self.value]))


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """What identifies a result before it exists.

    Attributes:
        kind: What is named, e.g. `program`; keys of different kinds never collide.
        factors: All that the result depends on. Their order is for readers and doesn't count.

    Raises:
        BadName: The kind can't be a folder name.
        ValueError: A factor is named twice.
    """

    kind: str
    factors: tuple[Factor, ...]

    def __post_init__(self) -> None:
        checked_name("kind of key", self.kind)
        names = [factor.name for factor in self.factors]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"factors named twice in a {self.kind} key: {', '.join(twice)}")

    @property
    def values(self) -> dict[str, JSON]:
        """The factors as a mapping from name to value."""
        return {factor.name: factor.value for factor in self.factors}

    @property
    def encoded(self) -> bytes:
        """The canonical JSON of the kind and the factors; its sha256 is the key's digest."""
        return canonical({"kind": self.kind, "factors": self.values})

    @classmethod
    def parse(cls, data: bytes) -> Key:
        """Read what `encoded` gives: `Key.parse(key.encoded) == key`.

        Raises:
            ValueError: It is not of that form.
            BadName: The kind can't be a folder name.
        """
        match parse(data):
            case {"kind": str(kind), "factors": dict(factors), **rest} if not rest:
                return cls(kind, tuple(Factor(name, value) for name, value in factors.items()))
        raise ValueError("a key is given as its kind and its factors")

    @property
    def digest(self) -> str:
        """The sha256 of `encoded`, as 64 hex digits."""
        return digest(self.encoded)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


class Absent:
    """The value of a factor that one of two keys doesn't have; there is one, `ABSENT`."""

    def __repr__(self) -> str:
        return "(absent)"


ABSENT = Absent()
Value: TypeAlias = "JSON | Absent"


class Difference(NamedTuple):
    """One place where two keys differ.

    Attributes:
        name: Name of the factor; below it, the dotted path to the value that differs.
        old: The value in the first key.
        new: The value in the second key.
    """

    name: str
    old: Value
    new: Value

    def __str__(self) -> str:
        return f"{self.name}: {_shown(self.old)} -> {_shown(self.new)}"


def differences(a: Key, b: Key) -> list[Difference]:
    """Where two keys differ, sorted by name.

    Objects are compared field by field, lists of objects item by item if they are equally long, other lists
    as a whole. A difference in kind comes first, as the name `kind`.
    """
    kinds = [] if a.kind == b.kind else [Difference("kind", a.kind, b.kind)]
    return kinds + sorted(_compare("", a.values, b.values), key=lambda change: change.name)


def _compare(prefix: str, a: Mapping[str, JSON], b: Mapping[str, JSON]) -> Iterator[Difference]:
    for name in {**a, **b}:
        old, new = a.get(name, ABSENT), b.get(name, ABSENT)
        fields = _fields(old, new)
        if fields is not None:
            yield from _compare(f"{prefix}{name}.", *fields)
        elif _shown(old) != _shown(new):
            yield Difference(f"{prefix}{name}", old, new)


def _fields(a: Value, b: Value) -> tuple[Mapping[str, JSON], Mapping[str, JSON]] | None:
    """Two values as mappings to compare field by field; None if they are to be compared as a whole."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a, b
    if not isinstance(a, list) or not isinstance(b, list) or len(a) != len(b):
        return None
    if not all(isinstance(item, Mapping) for item in (*a, *b)):
        return None
    return {str(i): item for i, item in enumerate(a)}, {str(i): item for i, item in enumerate(b)}


def _shown(value: Value) -> str:
    return repr(value) if isinstance(value, Absent) else canonical(value).decode()
