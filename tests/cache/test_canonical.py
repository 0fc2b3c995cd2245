"""Canonical JSON."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltx_cache.canonical import canonical, digest, parse

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4), max_leaves=12
)


@given(VALUES)
def test_reads_back_what_was_written(value: object) -> None:
    """parse(canonical(v)) == v, and encoding it again gives the same bytes."""
    data = canonical(value)
    assert json.dumps(parse(data)) == json.dumps(value) or parse(data) == value
    assert canonical(parse(data)) == data


@given(st.dictionaries(st.text(), SCALARS, min_size=2, max_size=6))
def test_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    """Two orders of one object give one sequence of bytes."""
    assert canonical(dict(reversed(value.items()))) == canonical(value)


def test_bytes_are_as_documented() -> None:
    """Keys sorted by code point, no spaces, UTF-8, shortest floats."""
    value = {"é": 1, "z": [0.1, 1e22, -0.0, True, None], "Z": "\u2028\n", "": {}}
    assert canonical(value) == '{"":{},"Z":"\u2028\\n","z":[0.1,1e+22,-0.0,true,null],"é":1}'.encode()


def test_numbers_of_different_type_differ() -> None:
    """1, 1.0 and true are three values."""
    assert len({canonical(1), canonical(1.0), canonical(True)}) == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, {"a": [math.nan]}, "\ud800"])
def test_refuses_what_json_cannot_say(value: object) -> None:
    """NaN, infinities and lone surrogates are errors."""
    with pytest.raises(ValueError, match=r"JSON compliant|surrogates"):
        canonical(value)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": {1: 2}}, "value.a has the key 1"),
        ({"a": [0, {"b": b"x"}]}, r"value.a\[1\].b is of type bytes"),
        ({"a": {1, 2}}, "value.a is of type set"),
    ],
)
def test_refuses_to_coerce(value: object, place: str) -> None:
    """What is not JSON is an error that gives the place."""
    with pytest.raises(TypeError, match=place):
        canonical(value)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"NaN", b"[-Infinity]", b"1e999", b'{"a":1,"a":1}', b"\xff", b"[" * 100_000, b"{}x"]
)
def test_parse_is_strict(data: bytes) -> None:
    """Anything but one value of strict JSON is refused."""
    with pytest.raises(ValueError, match=r".+"):
        parse(data)


def test_digest_is_sha256() -> None:
    """The digest is the one that sha256sum prints."""
    assert digest(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
