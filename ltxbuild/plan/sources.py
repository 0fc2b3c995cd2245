"""Digest of the builder's own source files that reach a module.

A program must be rebuilt when the code that makes it changes, and only then. The import graph inside the
package is read from the sources, so the digest needs no import of the modules (and no jax).
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

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


@cache
def _scan(module: str) -> tuple[str, tuple[str, ...]]:
    """Digest of one module's syntax tree and the package modules it imports."""
    path = _path(module)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
    inside = tuple(sorted({name for name in imports if name.startswith(f"{PACKAGE}.") and _exists(name)}))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), inside


def _path(module: str) -> Path:
    base = _ROOT.joinpath(*module.split(".")[1:])
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _exists(module: str) -> bool:
    return _path(module).is_file()
