"""Keys and their differences."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ltx_cache
from ltx_cache.canonical import JSON, digest
from ltx_cache.errors import BadName
from ltx_cache.key import ABSENT, Factor, Key, differences

FACTORS: dict[str, JSON] = {
    "compiler": {"jaxlib": "0.10.2", "flags": ["--a", "--b=1"]},
    "geometry": {"height": 512, "width": 768, "fps": 24.0},
    "mesh": [1, 4],
    "precision": "bfloat16",
    "isa": None,
}
GOLDEN = "76bae6851448a0348a83e97d042f6c1dc2c5211f809011cd395c59a223980f9a"
FLIPS: dict[str, tuple[JSON, ...]] = {
    "compiler": (
        {"jaxlib": "0.10.3", "flags": ["--a", "--b=1"]},
        {"jaxlib": "0.10.2", "flags": ["--b=1", "--a"]},
        {"jaxlib": "0.10.2"},
    ),
    "geometry": ({"height": 512, "width": 768, "fps": 24}, {"height": 768, "width": 512, "fps": 24.0}),
    "mesh": ([4, 1], [1, 4, 1], "[1,4]"),
    "precision": ("float32", None),
    "isa": (False, "", "None"),
}


def key(factors: dict[str, JSON], kind: str = "program") -> Key:
    """A key of these factors."""
    return Key(kind, tuple(Factor(name, value) for name, value in factors.items()))


def test_digest_never_changes() -> None:
    """A key made by an earlier version is found by this one."""
    assert key(FACTORS).digest == GOLDEN


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in FLIPS.items() for v in values])
def test_every_factor_counts(name: str, value: JSON) -> None:
    """Another value of any factor is another key, and the difference names the factor."""
    old, new = key(FACTORS), key(FACTORS | {name: value})
    assert old.digest != new.digest
    assert old != new
    assert {change.name.split(".")[0] for change in differences(old, new)} == {name}


@pytest.mark.parametrize("name", FACTORS)
def test_every_factor_must_be_there(name: str) -> None:
    """A key without a factor, or with one renamed, is another key."""
    less = {n: v for n, v in FACTORS.items() if n != name}
    digests = {key(FACTORS).digest, key(less).digest, key({**less, f"{name}2": FACTORS[name]}).digest}
    assert len(digests) == 3


def test_kind_counts_and_order_does_not() -> None:
    """Kinds never collide; the order of the factors is for readers."""
    assert key(FACTORS, "weights").digest != key(FACTORS).digest
    assert differences(key(FACTORS, "weights"), key(FACTORS))[0] == ("kind", "weights", "program")
    assert key(dict(reversed(FACTORS.items()))) == key(FACTORS)


def test_digest_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Other hash seeds, working directories and install paths give the same digest."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import ltx_cache\n"
        "from ltx_cache.key import Factor, Key\n"
        "assert ltx_cache.__file__.startswith(sys.argv[1])\n"
        "flags = {'--a', '--b', '--c', '--d'}\n"
        "factors = {'flags': sorted(flags), 'set': {flag: 1.5 for flag in flags}}\n"
        "print(Key('program', tuple(Factor(n, factors[n]) for n in set(factors))).digest)"
    )
    package = Path(ltx_cache.__path__[0])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "ltx_cache").symlink_to(package)
    found = {
        subprocess.check_output(
            [sys.executable, "-c", code, path], cwd=cwd, env={**os.environ, "PYTHONHASHSEED": seed}
        )
        for seed, cwd, path in [("1", "/", str(package.parent)), ("2", tmp_path, str(tmp_path / "elsewhere"))]
    }
    assert len(found) == 1


def test_differences_are_dotted_paths() -> None:
    """Objects are compared field by field, lists as a whole; absent is not null."""
    old = key({"a": {"x": 1, "y": {"z": [1, 2]}, "same": 0}, "b": None, "gone": 1})
    new = key({"a": {"x": True, "y": {"z": [1, 3]}, "same": 0}, "b": {}, "more": None})
    assert differences(old, new) == [
        ("a.x", 1, True),
        ("a.y.z", [1, 2], [1, 3]),
        ("b", None, {}),
        ("gone", 1, ABSENT),
        ("more", ABSENT, None),
    ]
    assert [str(change) for change in differences(old, new)][3:] == [
        "gone: 1 -> (absent)",
        "more: (absent) -> null",
    ]


def test_keys_can_be_read_back() -> None:
    """The bytes under a key's digest give the key; other JSON gives none."""
    made = key({"a": [1, {"b": 1.0}], "c": None}, "weights")
    assert Key.parse(made.encoded) == made
    assert digest(made.encoded) == made.digest
    for other in (b"[]", b"{}", b'{"kind":"x","factors":[]}', b'{"kind":"x","factors":{},"more":1}', b"x"):
        with pytest.raises(ValueError, match=r"key is given|Expecting"):
            Key.parse(other)


def test_lists_of_objects_are_compared_item_by_item() -> None:
    """The path of a field in a list has the item's number; lists of other lengths are compared as a whole."""
    old = key({"config": [{"layers": 2, "dim": 8}, {}], "loras": [], "mesh": [["tp", 4]]})
    new = key({"config": [{"layers": 3, "dim": 8}, {}], "loras": [{"x": 1}], "mesh": [["tp", 8]]})
    assert differences(old, new) == [
        ("config.0.layers", 2, 3),
        ("loras", [], [{"x": 1}]),
        ("mesh", [["tp", 4]], [["tp", 8]]),
    ]


SMALL = st.recursive(
    st.sampled_from([None, True, 1, 1.0, "1", ""]),
    lambda v: st.lists(v, max_size=2) | st.dictionaries(st.sampled_from("ab"), v, max_size=2),
    max_leaves=4,
)


@given(*[st.dictionaries(st.sampled_from("xyz"), SMALL, max_size=3)] * 2)
def test_differences_are_empty_exactly_for_equal_digests(a: dict[str, JSON], b: dict[str, JSON]) -> None:
    """What explains a miss never says nothing, and never speaks on a hit."""
    assert (differences(key(a), key(b)) == []) == (key(a).digest == key(b).digest)


def test_a_factor_keeps_a_copy() -> None:
    """A later change of the caller's object does not reach the key."""
    flags = {"flags": [1]}
    made = key({"f": flags})
    before = made.digest
    flags["flags"].append(2)
    assert made.digest == before


def test_malformed_keys_are_refused() -> None:
    """A factor given twice, a nameless one and a kind that is a path are errors."""
    with pytest.raises(ValueError, match="twice in a program key: a"):
        Key("program", (Factor("a", 1), Factor("a", 1)))
    with pytest.raises(ValueError, match="needs a name"):
        Factor("", 1)
    with pytest.raises(BadName, match=r"'\.\./program' is not a valid kind of key"):
        Key("../program", ())


def test_keys_and_factors_can_be_collected() -> None:
    """Equal keys and factors have equal hashes, and 1 is not True."""
    assert {key(FACTORS), key(FACTORS)} == {key(dict(reversed(FACTORS.items())))}
    assert len({Factor("a", 1), Factor("a", True), Factor("a", 1)}) == 2
