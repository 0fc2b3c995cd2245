"""`ltxbuild compile` killed with -9, many at once, and of two versions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import compiling
import pytest
import standin

from ltx_cache.store import Hit, Store
from ltx_cache.verify import verify
from ltx_run.contents import contents
from ltxbuild.synthetic.checkpoint import write_checkpoint

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join(str(ROOT / "tests" / name) for name in ("cache", "builder"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder)
    return folder


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 17])
def test_a_killed_compile_leaves_a_whole_cache(checkpoint: Path, memory: Path, step: int) -> None:
    """Old bundle or new, nothing damaged; the next compile comes to its end and `verify` is clean."""
    command = [sys.executable, compiling.__file__, str(checkpoint), str(memory), str(step)]
    said = subprocess.check_output(command, env={**os.environ, "PYTHONPATH": PATHS}, text=True)
    done = json.loads(said.splitlines()[-1])
    assert done["wrong"] == {}
    assert done["bundles"] == 2
    counts = Counter(done["calls"])
    assert counts["replace"] >= 12
    assert counts["fsync"] >= 2 * counts["replace"]


def start(home: Path, checkpoint: Path, packages: Path = ROOT) -> subprocess.Popen[str]:
    """Compile the tiny recipe with the stand-in, by the packages of a folder."""
    folders = [packages, packages / "runtime", packages / "cache"]
    env = {**os.environ, "LTX_HOME": str(home), "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, standin.__file__, str(checkpoint)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env)


def test_eight_processes_compile_the_same(tmp_path: Path, checkpoint: Path) -> None:
    """Each program is compiled once, each weight set sharded once, and everybody succeeds."""
    processes = [start(tmp_path, checkpoint) for _ in range(8)]
    done = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, [errors for _, errors in done]
    made = Counter("".join(out for out, _ in done).split())
    assert len(made) == 12
    assert set(made.values()) == {1}
    assert verify(Store(tmp_path), contents).problems == ()
    assert all("up to date" in errors or "built" in errors for _, errors in done)


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """Another version of the packages: what reaches the audio decoder differs."""
    for name in ("ltxbuild", "runtime", "cache", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / "newer" / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = tmp_path / "newer/ltxbuild/model/audio_decoder.py"
    code.write_text(f"{code.read_text()}\nNEWER = True\n")
    version = tmp_path / "newer/ltxbuild/__init__.py"
    version.write_text(f'{version.read_text()}\n__version__ = "99"\n')
    return tmp_path / "newer"


def test_two_versions_share_a_cache(tmp_path: Path, checkpoint: Path, newer: Path) -> None:
    """Each takes what the other has made if the code is the same, and neither makes the other build again."""
    made = []
    for packages in (ROOT, newer, ROOT, newer):
        process = start(tmp_path / "home", checkpoint, packages)
        out, errors = process.communicate()
        assert process.returncode == 0, errors
        made.append(sorted(out.split()))
    assert len(made[0]) == 12
    assert made[1:] == [["audio_decoder.18", "vocoder.69"], [], []]
    assert verify(Store(tmp_path / "home"), contents).problems == ()


def test_results_of_another_form_are_misses(tmp_path: Path, checkpoint: Path) -> None:
    """What another version keeps in records with other fields is built again, not tripped over."""
    start(tmp_path, checkpoint).communicate()
    store = Store(tmp_path)
    for kind in ("program", "weights", "table"):
        for key in store.entries(kind):
            found = store.lookup(key)
            assert isinstance(found, Hit)
            store.put_entry(key, {"schema": 2, "was": found.value}, found.blobs)
    process = start(tmp_path, checkpoint)
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    assert len(out.split()) == 12
    assert start(tmp_path, checkpoint).communicate()[0] == ""
