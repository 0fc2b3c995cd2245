"""The graphs that Neuron's compiler gets: their form, their operations, and what they compute."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from ltxbuild.neuron import hlo
from ltxbuild.neuron.census import census
from ltxbuild.neuron.groups import FORMS, groups
from ltxbuild.neuron.hlo import InstructionField, Module
from ltxbuild.neuron.operations import OPERATIONS

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests/neuron_tools/replicas.py"
KINDS = ("text_encoder", "denoise_step")
SUMS_PER_BLOCK = 14
"""Eight outputs of attention and feed-forward layers, and the norms of six attentions."""
OLD_JAX = "0.4.30"


@dataclass(frozen=True)
class Report:
    """What the script found, and where it left the graphs."""

    folder: Path
    found: dict[str, dict[str, object]]

    def module(self, kind: str) -> Module:
        return hlo.read((self.folder / f"{kind}.hlo").read_bytes())


def script(folder: Path, *arguments: str, **environment: str) -> dict[str, dict[str, object]]:
    """Run the script."""
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    found: dict[str, dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Tiny programs of both components, in f32."""
    folder = tmp_path_factory.mktemp("graphs")
    return Report(folder, script(folder, "compare", *KINDS))


@pytest.mark.parametrize("kind", KINDS)
def test_four_replicas_compute_what_one_device_does(report: Report, kind: str) -> None:
    """The very bytes that the compiler gets, executed with a share of the weights on each replica."""
    found = report.found[kind]
    cosines = found["cosines"]
    assert isinstance(cosines, list)
    assert min(cosines) >= 0.9999
    assert len(cosines) == 2
    assert found["ranks_agree"]


@pytest.mark.slow
def test_what_other_recipes_ask_for_computes_the_same(tmp_path: Path) -> None:
    """A loop inside the program, guidance, images."""
    for name, found in script(tmp_path, "compare", "loop", "guided", "images").items():
        cosines = found.get("cosines", [1.0])
        assert isinstance(cosines, list)
        assert min(cosines) >= 0.9999, name
        assert found.get("ranks_agree", True), name


@pytest.mark.parametrize("kind", KINDS)
def test_only_known_operations_and_groups_of_all_ranks(report: Report, kind: str) -> None:
    """No loop, no rank's number, no custom call; groups where older XLA looks for them."""
    module = report.module(kind)
    found = Counter(item.opcode for item in module.instructions)
    assert found.keys() <= OPERATIONS - {"while"}
    for item in module.instructions:
        fields = {number for number, _ in item.rest}
        if item.opcode in ("all-reduce", "all-gather"):
            assert fields & set(FORMS) == {InstructionField.GROUPS}
            assert groups(item) == [[0, 1, 2, 3]]
        assert not fields & {InstructionField.CHANNEL, InstructionField.GLOBAL_IDS, InstructionField.SHARDING}
        assert not item.metadata


def test_the_transformer_only_adds_up(report: Report) -> None:
    """As often as its blocks ask for; nothing is gathered."""
    found = Counter(item.opcode for item in report.module("denoise_step").instructions)
    assert found["all-reduce"] == 2 * SUMS_PER_BLOCK
    assert found["all-gather"] == 0
    (sums,) = census(report.module("denoise_step")).collectives
    assert (sums.kind, sums.group, sums.count) == ("all-reduce", 4, 2 * SUMS_PER_BLOCK)


def test_bytes_depend_on_neither_process_nor_path(report: Report, tmp_path: Path) -> None:
    """The package copied elsewhere, in another process, writes the same graph."""
    shutil.copytree(ROOT / "ltxbuild", tmp_path / "ltxbuild", ignore=shutil.ignore_patterns("__pycache__"))
    found = script(tmp_path, "write", "denoise_step", PYTHONPATH=str(tmp_path), PYTHONHASHSEED="7")
    assert found["package"] == {"file": str(tmp_path / "ltxbuild/__init__.py")}
    assert (tmp_path / "denoise_step.hlo").read_bytes() == (report.folder / "denoise_step.hlo").read_bytes()
    assert str(ROOT).encode() not in (report.folder / "denoise_step.hlo").read_bytes()


@pytest.mark.slow
def test_an_xla_as_old_as_the_compilers_computes_the_same(report: Report, tmp_path: Path) -> None:
    """It refuses numbers beyond 32 bits, and would overlook groups in newer fields."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    old = (f"jax=={OLD_JAX}", f"jaxlib=={OLD_JAX}", "numpy<2")
    install = [python, "-m", "pip", "install", "-q", *old]
    subprocess.run(install, check=True)
    command = [python, SCRIPT.with_name("old_xla.py"), report.folder, *KINDS]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    for kind, told in json.loads(done.stdout.splitlines()[-1]).items():
        module = report.module(kind)
        found = Counter(item.opcode for item in module.instructions)
        assert told["sums"] == found["all-reduce"] > 0
        assert told["grouped"] == found["all-reduce"] + found["all-gather"]
        assert told["named"] == len(module.entry.parameters)
        assert len(told["differences"]) == 2 * 4
        assert max(told["differences"]) < 1e-5


@pytest.mark.slow
def test_the_full_transformer_is_written_in_a_minute_and_4_gb(tmp_path: Path) -> None:
    """22 billion parameters at 768 video tokens: CPU time and memory of all processes, and its sums."""
    code = (
        "import os, sys, json, resource\n"
        "os.environ |= {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '--xla_force_host_platform_device_count=4'}\n"
        f"sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "from graphs import example\n"
        "sizes = dict(frames=4, height=12, width=16, audio=26, length=1024)\n"
        "graph = example('denoise_step', 'ltx-2.3-22b', 'bfloat16', **sizes).graph()\n"
        f"open({str(tmp_path / 'graph.hlo')!r}, 'wb').write(graph)\n"
        "who = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN\n"
        "used = [resource.getrusage(each) for each in who]\n"
        "seconds = sum(each.ru_utime + each.ru_stime for each in used)\n"
        "print(json.dumps([seconds, sum(each.ru_maxrss for each in used) * 1024]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    seconds, memory = json.loads(done.stdout.splitlines()[-1])
    module = hlo.read((tmp_path / "graph.hlo").read_bytes())
    found = Counter(item.opcode for item in module.instructions)
    assert found["all-reduce"] == 48 * SUMS_PER_BLOCK
    assert found["all-gather"] == 0
    assert found.keys() <= OPERATIONS - {"while"}
    assert seconds < 60
    assert memory < 4e9
