r"""Canonical JSON: one value, one sequence of bytes, on every machine.

Keys are sorted by code point, there are no spaces, text is UTF-8 and not escaped, floats are the shortest
digits that read back as the same number. NaN, infinities, keys that are not text and anything that is not
JSON are refused instead of being coerced, since a silent coercion would give two values one digest.

Example:
    >>> canonical({"b": [1, 2.0], "a": "é"})
    b'{"a":"\xc3\xa9","b":[1,2.0]}'
    >>> parse(canonical({"a": (1, None)}))
    {'a': [1, None]}
    >>> digest(b"")
    'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'

Laws: `parse(canonical(v)) == v` (tuples read as lists); `canonical(parse(b)) == b` for every `b` made by
`canonical`.

Stability: the bytes are part of every key, so they don't change within a layout of the store.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"


def canonical(value: JSON) -> bytes:
    """Encode a value.

    Raises:
        TypeError: Something in it is not JSON; the message gives the place.
        ValueError: A number is NaN or infinite, or a text has a lone surrogate.
    """
    text = json.dumps(
        _plain(value, "value"), ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return text.encode("utf-8")


def parse(data: bytes) -> JSON:
    """Decode JSON strictly.

    Raises:
        ValueError: Not UTF-8, not JSON, nested too deep, a key given twice, NaN or an infinity.
    """
    try:
        value: JSON = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def digest(data: bytes) -> str:
    """The sha256 of the bytes, as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def _plain(value: object, place: str) -> object:
    """A copy out of plain lists and dicts, after a check of every node."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{place} has the key {key!r}: keys must be text")
        return {key: _plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{place} is of type {type(value).__name__}, which is not JSON")


def _unique(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("a key is given twice in one object")
    return unique


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is too large for a float")
    return number


def _no_constant(name: str) -> JSON:
    raise ValueError(f"{name} is not JSON")
