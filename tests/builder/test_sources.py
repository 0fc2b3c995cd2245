"""The digest of the sources that reach a program."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ltxbuild
from ltx_cache.store import Store
from ltxbuild.plan import sources
from ltxbuild.plan.sources import reached_modules, source_digest
from ltxbuild.programs import MODULES
from ltxbuild.targets import TARGETS
from ltxbuild.targets.target import Target

AWAY = ("ltxbuild.cli", "ltxbuild.recipe", "ltxbuild.build")
PACKAGE = Path(ltxbuild.__file__).parent
DIGEST = "import sys; from ltxbuild.plan.sources import source_digest; print(source_digest(*sys.argv[1:]))"


def digest_of_copy(folder: Path, edit: dict[str, tuple[str, str]], *modules: str) -> str:
    """Digest computed in another process, install path and working directory, after editing files."""
    target = folder / "copy"
    shutil.copytree(PACKAGE, target / "ltxbuild", dirs_exist_ok=True)
    for name, (old, new) in edit.items():
        path = target / "ltxbuild" / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", DIGEST, *modules],
        cwd=target,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={"PYTHONPATH": str(target), "PYTHONHASHSEED": "7"},
    )
    return done.stdout.strip()


def test_the_digest_does_not_depend_on_place_or_process(tmp_path: Path) -> None:
    """A copy elsewhere, with another hash seed, gives the same digest."""
    module = MODULES["denoise"]
    assert digest_of_copy(tmp_path, {}, module) == source_digest(module)


def test_comments_do_not_count(tmp_path: Path) -> None:
    """A comment changes no digest."""
    edit = {"model/layers.py": ("import jax\n", "# a word\nimport jax\n")}
    assert digest_of_copy(tmp_path, edit, MODULES["denoise"]) == source_digest(MODULES["denoise"])


def test_code_counts_where_it_reaches(tmp_path: Path) -> None:
    """Editing the transformer's block changes the denoising programs and leaves the vocoder alone."""
    edit = {"model/block.py": ("CROSS_ROWS = 9, 2, 5", "CROSS_ROWS = 9, 2, 2 + 3")}
    assert digest_of_copy(tmp_path, edit, MODULES["denoise"]) != source_digest(MODULES["denoise"])
    assert digest_of_copy(tmp_path, edit, MODULES["vocoder"]) == source_digest(MODULES["vocoder"])


def test_a_program_reaches_its_model_and_no_command_line() -> None:
    """The graph follows imports down to the layers, and stays away from planning and commands."""
    reached = reached_modules(MODULES["denoise"])
    assert "ltxbuild.model.layers" in reached
    assert not [name for name in reached if name.startswith(AWAY)]


@pytest.mark.parametrize("each", TARGETS.values(), ids=TARGETS)
def test_a_compiler_reaches_no_recipe(each: Target) -> None:
    """A new field of recipes rebuilds no program."""
    reached = reached_modules(each.backend, *([each.assembler] if each.assembler else []))
    assert "ltxbuild.compiler.lower" in reached
    assert not [name for name in reached if name.startswith(AWAY)]


def test_empty_fields_of_other_pythons_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer versions have further fields, which are empty where sources don't use them."""
    data = b"def f(x: int = 1) -> str:\n    return 'x'\n"
    expected, parse = sources._read(data), ast.parse

    def newer(text: bytes) -> ast.Module:
        tree = parse(text)
        for node in ast.walk(tree):
            node._fields = (*node._fields, "type_params", "kind_of")
            vars(node).update(type_params=[], kind_of=None)
        return tree

    monkeypatch.setattr(ast, "parse", newer)
    assert sources._read(data) == expected
    assert sources._read(data.replace(b"1", b"True")) != expected


def test_what_was_read_is_remembered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later process parses nothing, comes to the same digest, and reads again what has changed."""
    expected = source_digest(*MODULES.values())
    parsed: list[bytes] = []
    read = sources._read

    def spy(data: bytes) -> tuple[str, tuple[str, ...]]:
        parsed.append(data)
        return read(data)

    monkeypatch.setattr(sources, "_read", spy)
    counts = []
    for forget in (lambda: None, lambda: None, lambda: sources._BY_CONTENT.popitem()):
        sources._scan.cache_clear()
        sources._BY_CONTENT.clear()
        parsed.clear()
        with sources.remembered(store):
            forget()
            assert source_digest(*MODULES.values()) == expected
        counts.append(len(parsed))
    assert counts[0] > 20
    assert counts[1:] == [0, 1]


def test_what_is_remembered_in_another_form_is_read_again(store: Store) -> None:
    """Another version's notes cost time, not results."""
    with sources.remembered(store):
        expected = source_digest(MODULES["denoise"])
    (key,) = store.entries("sources")
    store.put_entry(key, {"x": 1}, [])
    sources._scan.cache_clear()
    with sources.remembered(store):
        assert source_digest(MODULES["denoise"]) == expected
