"""Compiling with a stand-in for neuronx-cc: what it is called with, how it fails, what is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import neuronx_cc
import pytest
from neuron_keys import FLAGS, GRAPH, Lower
from neuron_keys import neuron_key as key

from ltx_cache.store import Hit, Store
from ltx_run.neuron.neff import HEADER_SIZE
from ltxbuild.errors import BuildFailed, RecipeError, ToolMissing
from ltxbuild.neuron import assembly, compile, toolchain
from ltxbuild.neuron.assembly import graph_key
from ltxbuild.neuron.command import command
from ltxbuild.plan.planner import BuildPlan, plan_build
from ltxbuild.plan.sources import reached_modules
from ltxbuild.recipe import load
from ltxbuild.synthetic.shipped import shipped_config

RECIPES = Path(__file__).parents[2] / "recipes"
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a stand-in on the PATH and returns its folder; without a call there is none."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(toolchain, "BESIDE", "/nowhere")

    def chosen(mode: str = "good", **options: str) -> Path:
        folder = neuronx_cc.install(tmp_path / f"bin-{time.monotonic_ns()}", mode, **options)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return folder

    return chosen


def test_a_neff_is_made_of_the_graph(store: Store, install: Install) -> None:
    """The bundle's executable is the compiler's file as it is; its parts are not kept for results."""
    install()
    made = assembly.assemble("denoise", key(), store, Lower(store))
    data = store.put_bytes(neuronx_cc.neff(GRAPH))
    assert made["executable"] == {"sha256": data.sha256, "size": HEADER_SIZE + len(GRAPH)}
    assert made["runtime"] == f"neuronx-cc {neuronx_cc.VERSION}"
    assert made["features"] == ["trn2", "lnc2"]
    assert made["inputs"][0]["donated"] is False
    assert made["memory"]["code"] == data.size
    assert "compiler log" in store.log_path("denoise").read_text()


def test_the_compiler_runs_apart(store: Store, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own that is gone afterwards, without variables that would change the code."""
    for name in ("NEURON_CC_FLAGS", "NEURON_SCRATCHPAD_PAGE_SIZE", "XLA_FLAGS", "JAX_PLATFORMS", "TF_CPP_X"):
        monkeypatch.setenv(name, "1")
    folder = install()
    assembly.assemble("denoise", key(), store, Lower(store))
    (call,) = neuronx_cc.calls(folder)
    environment = call["environment"]
    assert isinstance(environment, dict)
    neuron = {name: value for name, value in environment.items() if name.startswith("NEURON")}
    assert neuron == {"NEURON_PLATFORM_TARGET_OVERRIDE": "trn2", "NEURON_LOGICAL_NC_CONFIG": "2"}
    assert not {name for name in environment if name.startswith(("XLA_", "JAX_", "TF_"))}
    assert environment["PATH"] == os.environ["PATH"]
    assert not Path(str(call["folder"])).exists()


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("refuses", r"exit code 70 \(this version doesn't know an operation"),
        ("memory", r"exit code 70 \(memory ran out"),
        ("killed", r"killed by signal 9 \(memory ran out"),
        ("hangs", "still at it after 1 s"),
        ("wrong_lnc", "for logical cores of 1 physical ones, 2 were asked for"),
        ("nothing", "left no NEFF"),
        ("broken", "no NEFF: archive of kind"),
        ("torn", "the NEFF's archive has 7 bytes, 4 are there"),
    ],
)
def test_a_failure_is_told_and_never_kept(
    mode: str, said: str, store: Store, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why, and where the log is; the next try compiles anew, and lowers nothing again."""
    monkeypatch.setattr(compile, "LIMIT", 1.0)
    install(mode)
    lower = Lower(store)
    with pytest.raises(BuildFailed, match=said) as caught:
        assembly.assemble("denoise", key(), store, lower)
    log = store.log_path("denoise")
    assert str(log) in str(caught.value.hint)
    assert "compiler log" in log.read_text()
    assert list(store.entries("neff")) == []
    install("good")
    assert not assembly.assemble("denoise", key(), store, lower)["reused"]
    assert lower.count == 1


def test_a_full_or_missing_disk_is_told(
    store: Store, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the folder and what to set; no traceback."""
    install()
    monkeypatch.setattr(compile.tempfile, "tempdir", "/nowhere/at/all")
    with pytest.raises(BuildFailed, match=r"/nowhere/at/all.*No such file") as caught:
        assembly.assemble("denoise", key(), store, Lower(store))
    assert "TMPDIR" in str(caught.value.hint)


def is_there(process: int) -> bool:
    """Whether a process runs."""
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone, or while it is read
        return False


def test_what_hangs_is_ended(store: Store, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it has started."""
    monkeypatch.setattr(compile, "LIMIT", 1.0)
    folder = install("hangs")
    with pytest.raises(BuildFailed):
        assembly.assemble("denoise", key(), store, Lower(store))
    (call,) = neuronx_cc.calls(folder)
    _until(lambda: not any(is_there(process) for process in call["processes"]))


def test_a_build_that_stops_compiles_nothing_more(store: Store, install: Install) -> None:
    """The compile that runs ends, and the one that waits for it doesn't begin."""
    folder, stop = install("hangs"), threading.Event()
    with ThreadPoolExecutor(2) as threads:
        compiles = [
            threads.submit(assembly.assemble, name, key(sources=name), store, Lower(store), stop)
            for name in ("one", "other")
        ]
        _until(lambda: bool(neuronx_cc.calls(folder)))
        stop.set()
        for given_up in compiles:
            with pytest.raises(CancelledError):
                given_up.result(30)
    (call,) = neuronx_cc.calls(folder)
    _until(lambda: not any(is_there(process) for process in call["processes"]))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_compiler_ends_with_the_build(how: signal.Signals, tmp_path: Path, install: Install) -> None:
    """However that ends: an hour's work for nobody would hold the machine's memory."""
    folder = install("hangs")
    code = (
        "import sys, neuron_keys; from pathlib import Path; from ltx_cache.store import Store\n"
        "from ltxbuild.neuron import assembly\n"
        f"store = Store(Path({str(tmp_path / 'store')!r}))\n"
        "assembly.assemble('x', neuron_keys.neuron_key(), store, neuron_keys.Lower(store))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(neuronx_cc.__file__).parent)}
    build = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    _until(lambda: bool(neuronx_cc.calls(folder)))
    processes = neuronx_cc.calls(folder)[0]["processes"]
    assert all(is_there(process) for process in processes)
    build.send_signal(how)
    build.wait()
    _until(lambda: not any(is_there(process) for process in processes))


def _until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.mark.parametrize("mode", [None, "stub"])
def test_without_a_compiler_the_graph_is_kept(mode: str | None, store: Store, install: Install) -> None:
    """The stub of PyPI counts as none. Where the compiler is, only the compile remains."""
    if mode:
        install(mode)
    assert toolchain.find() is None
    lower = Lower(store)
    program = key(tools={"neuronx-cc": "not installed"})
    with pytest.raises(ToolMissing, match="not installed"):
        assembly.assemble("denoise", program, store, lower)
    assert isinstance(store.lookup(graph_key(program)), Hit)
    install()
    assembly.assemble("denoise", key(), store, lower)
    assert lower.count == 1


def test_another_version_than_the_recipes_is_refused(store: Store, install: Install) -> None:
    """Both are named."""
    install(version="2.23.6484.0+3b612583")
    with pytest.raises(
        ToolMissing, match=r"asks for neuronx-cc 2\.24.*2\.23\.6484\.0\+3b612583 is installed"
    ):
        assembly.assemble("denoise", key(), store, Lower(store))


def test_a_neff_serves_all_sources_with_that_graph(store: Store, install: Install) -> None:
    """A change of the builder's code that changes no graph costs no compile."""
    folder = install()
    assembly.assemble("denoise", key(), store, Lower(store))
    again = assembly.assemble("denoise", key(sources="1"), store, Lower(store))
    assert again["reused"]
    assert len(neuronx_cc.calls(folder)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"flags": {**FLAGS, "optlevel": 2}},
        {"flags": {**FLAGS, "lnc": 1}},
        {"tools": {"neuronx-cc": "2.24.8799.0"}},
        {"target": {"platform": "neuron", "topology": "trn3"}},
    ],
)
def test_what_the_compiler_reads_is_in_the_key(change: dict[str, Any], store: Store) -> None:
    """Arguments, environment and version; the graph is the same for all flags and versions."""
    graph = assembly.lowered(key(), store, Lower(store))
    assert assembly.neff_key(key(), graph).digest != assembly.neff_key(key(**change), graph).digest
    if "target" not in change:
        assert graph_key(key()).digest == graph_key(key(**change)).digest


def plan(recipe: str, store: Store) -> BuildPlan:
    """Plan of a shipped recipe."""
    files = {"model": "a" * 64, "text_encoder/model.safetensors": "b" * 64, "upsampler": "c" * 64}
    return plan_build(load(RECIPES / recipe), shipped_config("ltx-2.3-22b"), store, files)


def test_arguments_of_the_shipped_recipe(store: Store, install: Install) -> None:
    """Word by word: a list, no shell, values that look like options joined to their names."""
    found = {
        item.spec.kind: command(assembly.flags(item.key), assembly.topology(item.key))
        for item in plan("trn2_halfres.yaml", store).programs.values()
        if item.placement.platform == "neuron"
    }
    files = ["--output", "graph.neff", "--logfile", "log-neuron-cc.txt", "--verbose", "35"]
    start = ["compile", "graph.hlo", "--framework", "XLA", "--target", "trn2", *files, "--auto-cast", "none"]
    middle = ["--enable-fast-loading-neuron-binaries", "--lnc", "2", "--model-type", "transformer", "-O1"]
    overlap = "--tensorizer-options=--enable-ccop-compute-overlap"
    dma = "--cc-pipeline-tiling-factor=1 --vectorize-strided-dma --enable-scalar-dge-vectorization"
    assert found == {
        "denoise_step": [*start, *middle, overlap],
        "text_encoder": [*start, *middle, f"{overlap} {dma}"],
    }


def test_an_option_of_the_build_is_not_the_recipes() -> None:
    """Such as where the result goes."""
    with pytest.raises(RecipeError, match=r"flags\.output can't be set"):
        command({**FLAGS, "output": "elsewhere"}, "trn2")
    assert "--lnc" not in command({**FLAGS, "lnc": False}, "trn2")


def test_recipes_and_plans_are_no_code_that_a_graph_depends_on() -> None:
    """Else any change there would lower everything again."""
    reached = reached_modules("ltxbuild.compiler.neuron", "ltxbuild.neuron.assembly")
    assert "ltxbuild.neuron.clean" in reached
    assert not {"ltxbuild.recipe", "ltxbuild.plan.keys", "ltxbuild.plan.planner"} & set(reached)


def test_a_single_core_is_refused(tmp_path: Path, store: Store) -> None:
    """XLA would partition nothing, and the model wouldn't fit."""
    path = tmp_path / "one.yaml"
    one = "target: {profile: single, tensor_parallel: 1}"
    path.write_text(f"extends: {RECIPES / 'trn2_halfres.yaml'}\n{one}\n")
    with pytest.raises(RecipeError, match="splits programs over the cores"):
        plan_build(load(path), shipped_config("ltx-2.3-22b"), store, None)


def test_recipes_share_programs_and_weights(store: Store, install: Install) -> None:
    """Half and full size and the first of two stages: one set of weight files, no program twice."""
    half, full, both = (plan(f"trn2_{name}.yaml", store) for name in ("halfres", "fullres", "two_stage"))
    weights = {item.weights["transformer"].key for item in (half, full, both)}
    assert len(weights) == 1
    shared = "text_encoder", "denoise_step.4x6x8a26f24"
    assert all(half.programs[name].key == both.programs[name].key for name in shared)
    kinds = {item.spec.kind for item in half.programs.values() if item.placement.platform == "neuron"}
    assert kinds == {"text_encoder", "denoise_step"}
    assert {item.forms.layers for item in half.programs.values() if item.spec.kind in kinds} == {"unroll"}
    assert {item.forms.attention for item in full.programs.values() if item.spec.kind in kinds} == {"plain"}
