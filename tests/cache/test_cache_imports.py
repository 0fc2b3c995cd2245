"""What the package imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ltx_cache

SOURCES = sorted(Path(ltx_cache.__path__[0]).glob("*.py"))
LOADED = "import sys; before = set(sys.modules); import {}; print(*sorted(set(sys.modules) - before))"
WANTED = {
    "locks.py": {"filelock"},
    "leases.py": {"filelock"},
    "hub.py": {"huggingface_hub", "httpx"},
    "public_key.py": {"cryptography"},
    "signing.py": {"cryptography"},
    "openssf.py": {"cryptography", "model_signing"},
}


def loaded_by(module: str) -> set[str]:
    """Modules that an import brings in."""
    return set(subprocess.check_output([sys.executable, "-c", LOADED.format(module)], text=True).split())


def imports(path: Path) -> set[str]:
    """Top-level names of all imports in a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_the_store_loads_no_network_and_no_model_code() -> None:
    """Importing the store loads nothing that is slow, opens sockets or runs what it reads."""
    heavy = {
        "huggingface_hub",
        "filelock",
        "socket",
        "ssl",
        "asyncio",
        "logging",
        "subprocess",
        "tempfile",
        "pickle",
    }
    heavy |= {"httpx", "cryptography", "model_signing"}
    heavy |= {"multiprocessing", "concurrent", "concurrent.futures", "difflib", "numpy", "jax", "torch"}
    assert not loaded_by("ltx_cache.store") & heavy


def test_the_package_itself_loads_nothing() -> None:
    """Whoever needs the errors alone does not pay for the store."""
    assert loaded_by("ltx_cache") == {"ltx_cache"}
    assert "dataclasses" not in loaded_by("ltx_cache.errors")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_pickle_and_no_layer_above(path: Path) -> None:
    """No source imports a module that runs what it reads, or a package above the cache."""
    allowed = set(sys.stdlib_module_names) | {"ltx_cache", *WANTED.get(path.name, set())}
    assert imports(path) <= allowed - {"pickle", "marshal", "shelve", "dbm", "importlib", "socket"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_read_is_executed(path: Path) -> None:
    """No source calls eval, exec or compile."""
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"eval", "exec", "compile", "__import__"}
