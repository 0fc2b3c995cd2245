"""Digest of the builder's own source files that reach a module.

A program must be rebuilt when the code that makes it changes, and only then. The import graph inside the
package is read from the sources, so the digest needs no import of the modules (and no jax). What is read off
a file is known by its content, and `remembered` keeps it for later processes: parsing would take longer
than the rest of a plan.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import msgspec

from ltx_cache.errors import StoreNotWritable
from ltx_cache.key import Factor, Key
from ltx_cache.store import Hit, Store

PACKAGE = "ltxbuild"
_ROOT = Path(__file__).parents[1]


def source_digest(*modules: str) -> str:
    """sha256 over the sources of the modules and of all package modules that they import.

    Formatting and comments don't count: what is hashed is the syntax tree.
    """
    reached: dict[str, str] = {}
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module in reached:
            continue
        reached[module], imports = _scan(module)
        pending += imports
    text = "\n".join(f"{module} {digest}" for module, digest in sorted(reached.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def reached_modules(*modules: str) -> tuple[str, ...]:
    """Names of all package modules that the given ones import, sorted."""
    reached: set[str] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module not in reached:
            reached.add(module)
            pending += _scan(module)[1]
    return tuple(sorted(reached))


@contextmanager
def remembered(store: Store) -> Iterator[None]:
    """Take what an earlier process has read off the same files, and keep what is read during the block."""
    key = Key("sources", (Factor("form", 2),))
    found = store.lookup(key)
    known = set[str]()
    if isinstance(found, Hit):
        with suppress(msgspec.ValidationError):  # another version keeps it in another form
            scans = msgspec.convert(found.value, dict[str, tuple[str, tuple[str, ...]]])
            known = set(scans)
            _BY_CONTENT.update(scans)
    yield
    if known != set(_BY_CONTENT):
        with suppress(StoreNotWritable):
            store.put_entry(key, _BY_CONTENT if len(_BY_CONTENT) < MANY else {}, [])


MANY = 2000
"""Files after which all are forgotten: editing makes new ones all the time."""

_BY_CONTENT: dict[str, tuple[str, tuple[str, ...]]] = {}
"""By sha256 of a file: digest of its syntax tree, and what it imports from the package."""


@cache
def _scan(module: str) -> tuple[str, tuple[str, ...]]:
    """Digest of one module's syntax tree and the package modules it imports."""
    data = _path(module).read_bytes()
    content = hashlib.sha256(data).hexdigest()
    if content not in _BY_CONTENT:
        _BY_CONTENT[content] = _read(data)
    digest, imports = _BY_CONTENT[content]
    return digest, tuple(name for name in imports if _exists(name))


def _read(data: bytes) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(data)
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
    inside = tuple(sorted({name for name in imports if name.startswith(f"{PACKAGE}.")}))
    return hashlib.sha256(repr(_normal(tree)).encode()).hexdigest(), inside


def _normal(node: object) -> object:
    """A syntax tree as tuples, without what is empty: Python's versions differ in that, and in `ast.dump`."""
    if isinstance(node, ast.AST):
        fields = ((name, _normal(value)) for name, value in ast.iter_fields(node))
        return type(node).__name__, *((name, value) for name, value in fields if value not in (None, ()))
    if isinstance(node, list):
        return tuple(map(_normal, node))
    return node if isinstance(node, str | int | None) else repr(node)


def _path(module: str) -> Path:
    base = _ROOT.joinpath(*module.split(".")[1:])
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


@cache
def _exists(module: str) -> bool:
    return _path(module).is_file()
