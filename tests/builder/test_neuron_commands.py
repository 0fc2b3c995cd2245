"""The command line for Trainium2: building without its compiler, and taking graphs to one elsewhere."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import neuronx_cc
import pytest
from bundles import fake_bundle, publish
from commands import Command
from neuron_keys import GRAPH, Lower, neuron_key

from ltx_cache.store import Store
from ltxbuild.neuron import assembly, hlo, toolchain
from ltxbuild.neuron.wire import fields, numbers

TINY = Path(__file__).parents[2] / "recipes/trn2_tiny.yaml"
NEURON_KEY = neuron_key()
PROGRAMS = ("text_encoder", "denoise_step.3x4x6a18f24")


def recipe(folder: Path, name: str, target: str = "{}") -> str:
    """A recipe over the tiny one."""
    path = folder / f"{name}.yaml"
    path.write_text(f"extends: {TINY}\ntarget: {target}\n")
    return str(path)


def elsewhere(folder: Path, compiler: Path) -> None:
    """Do what a program's folder says, as another machine would."""
    call: dict[str, Any] = json.loads((folder / "argv.json").read_text())
    program, *arguments = call["argv"]
    environment = {"PATH": f"{compiler}:/usr/bin:/bin", **call["environment"]}
    subprocess.run([compiler / program, *arguments], cwd=folder, env=environment, check=True)


def test_graphs_go_elsewhere_and_neffs_come_back(
    ltxbuild: Command, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the compiler all but its work is done; with its NEFFs the build is complete without it."""
    monkeypatch.setattr(toolchain, "find", lambda: None)
    free, pinned = recipe(tmp_path, "free"), recipe(tmp_path, "pin", f"{{compiler: {neuronx_cc.VERSION}}}")
    only = [part for name in PROGRAMS for part in ("--only", name)]

    refused = ltxbuild("compile", free, "--programs-only", *only)
    assert refused.code == 3
    assert "neuronx-cc is not installed" in refused.err
    assert f"LTX_HOME={store.root} ltxbuild compile {free}" in refused.err
    assert len(list(store.entries("graph"))) == len(PROGRAMS)

    graphs = tmp_path / "graphs"
    assert ltxbuild("export", free, "--neuron", str(graphs), "--programs-only").code == 0
    assert sorted(path.name for path in graphs.iterdir()) == sorted(PROGRAMS)
    described(graphs / "text_encoder")

    compiler = neuronx_cc.install(tmp_path / "bin")
    for name in PROGRAMS:
        elsewhere(graphs / name, compiler)
    back = ("--neuron", str(graphs), "--programs-only")
    unpinned = ltxbuild("import", free, *back)
    assert (unpinned.code, "target.compiler" in unpinned.err) == (2, True)
    assert ltxbuild("import", pinned, *back).code == 0

    assert ltxbuild("compile", pinned, "--programs-only", *only).code == 0
    assert len(neuronx_cc.calls(compiler)) == len(PROGRAMS)
    for break_it, said in (
        (_another_graph, "the recipe's graph is"),
        (_other_flags, "is not how the recipe"),
        (_no_json, "argv.json can't be read"),
        (_deep_json, "argv.json can't be read"),
        (_no_text, "argv.json can't be read"),
    ):
        break_it(graphs / "text_encoder")
        broken = ltxbuild("import", pinned, *back)
        assert (broken.code, said in broken.err) == (2, True)
        assert ltxbuild("export", free, *back).code == 0
    (graphs / "text_encoder/graph.neff").write_bytes(neuronx_cc.neff(b"graph", lnc=1))
    assert "1 physical ones, 2 were asked for" in ltxbuild("import", pinned, *back).err


def _another_graph(folder: Path) -> None:
    (folder / "graph.hlo").write_bytes(b"another")


def _other_flags(folder: Path) -> None:
    file = folder / "argv.json"
    file.write_text(file.read_text().replace("-O1", "-O2"))


def _no_json(folder: Path) -> None:
    (folder / "argv.json").write_bytes(b"")


def _deep_json(folder: Path) -> None:
    (folder / "argv.json").write_bytes(b"[" * 100_000)


def _no_text(folder: Path) -> None:
    (folder / "argv.json").write_bytes(b'{"argv": ["\xff"]}')


def described(folder: Path) -> None:
    """`io.json` tells of every parameter what the graph says: its place, its name, the shape of a part."""
    told = json.loads((folder / "io.json").read_text())
    graph = hlo.read((folder / "graph.hlo").read_bytes())
    shapes = [_sizes(item.shape) for item in graph.entry.parameters]
    assert [item["part"] for item in told["inputs"]] == shapes
    assert [item["name"] for item in told["inputs"]] == [f"input{i}" for i in range(len(shapes))]
    assert [item["tensor"] for item in told["outputs"]] == ["features.video", "features.audio"]
    assert {item["kind"] for item in told["inputs"]} == {"weight", "tensor"}


def _sizes(shape: bytes) -> list[int]:
    """Dimensions in a `ShapeProto`."""
    return [size for number, value in fields(shape) if number == 3 for size in numbers(value)]


def test_graphs_of_a_bundle_are_exported_while_the_cache_has_them(
    ltxbuild: Command, store: Store, tmp_path: Path
) -> None:
    """The bundle itself holds NEFFs alone."""
    bundle = fake_bundle(store, programs={"denoise": NEURON_KEY}, platform="neuron")
    publish(store, bundle)
    store.put_entry(NEURON_KEY, {}, [])
    out = tmp_path / "out"
    gone = ltxbuild("export", "fake", "--neuron", str(out))
    assert (gone.code, "no longer has the graph of denoise" in gone.err) == (1, True)
    assembly.lowered(NEURON_KEY, store, Lower(store))
    assert ltxbuild("export", "fake", "--neuron", str(out)).code == 0
    assert (out / "denoise/graph.hlo").read_bytes() == GRAPH
    unwritable = ltxbuild("export", "fake", "--neuron", "/proc/out")
    assert (unwritable.code, "cannot write" in unwritable.err) == (1, True)


def test_a_recipe_for_another_platform_has_nothing_to_export(ltxbuild: Command, tmp_path: Path) -> None:
    """And no other platform takes a version of neuronx-cc."""
    cpu = TINY.with_name("cpu_tiny.yaml")
    done = ltxbuild("export", str(cpu), "--neuron", str(tmp_path / "out"), "--programs-only")
    assert (done.code, "has no programs for Neuron" in done.err) == (2, True)
    path = tmp_path / "cpu.yaml"
    path.write_text(f"extends: {cpu}\ntarget: {{compiler: 2.24.5133.0}}\n")
    done = ltxbuild("plan", str(path), "--programs-only")
    assert (done.code, "compiler is for platform neuron" in done.err) == (2, True)
