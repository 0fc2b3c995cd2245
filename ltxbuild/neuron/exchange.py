"""Folders to take graphs to a compiler elsewhere, and to bring its NEFFs back.

A program has a folder with `graph.hlo`; with `io.json`, which says what each of its tensors is; and with
`argv.json`, which says how to compile it. The compiler leaves `graph.neff` there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ltx_cache.files import reading, writing
from ltx_cache.key import Key
from ltx_cache.store import Store
from ltx_run.bundle import TensorSpec
from ltx_run.contents import UNREADABLE
from ltx_run.distribution import Distribution
from ltx_run.neuron.names import input_name, output_name
from ltxbuild.errors import NeffRefused
from ltxbuild.neuron import assembly, toolchain
from ltxbuild.neuron.assembly import Graph
from ltxbuild.neuron.command import GRAPH, NEFF, command, environment
from ltxbuild.neuron.compile import neff_problem

IO, ARGV = "io.json", "argv.json"


def export_program(folder: Path, name: str, program: Key, graph: Graph, store: Store) -> list[str]:
    """Write a program's folder.

    Returns:
        The command to run there.
    """
    call = _call(program)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(store.open(assembly.ref(graph.code)), folder / GRAPH)
        _write(folder / IO, _tensors(name, program, graph))
        _write(folder / ARGV, call)
    return [str(part) for part in call["argv"]]


def import_program(folder: Path, name: str, program: Key, graph: Graph, store: Store) -> None:
    """Keep the NEFF of a program's folder as what the compiler would have made here.

    Raises:
        NeffRefused: It was made of another graph or with other arguments, or is no NEFF of the right kind.
    """
    with reading(folder / GRAPH):
        compiled = hashlib.sha256((folder / GRAPH).read_bytes()).hexdigest()
    if compiled != graph.code.sha256:
        raise _refused(
            name, f"{folder / GRAPH} is {compiled[:12]}, the recipe's graph is {graph.code.sha256[:12]}"
        )
    with reading(folder / ARGV):
        call = (folder / ARGV).read_bytes()
    try:
        said = msgspec.json.decode(call)
    except UNREADABLE as error:
        raise _refused(name, f"{folder / ARGV} can't be read: {error}") from None
    if said != _call(program):
        raise _refused(name, f"{folder / ARGV} is not how the recipe compiles it")
    with reading(folder / NEFF):
        data = (folder / NEFF).read_bytes()
    problem = neff_problem(data, assembly.flags(program)["lnc"])
    if problem:
        raise _refused(name, f"{folder / NEFF}: {problem}")
    assembly.keep(assembly.neff_key(program, graph), data, store)


def _refused(name: str, why: str) -> NeffRefused:
    return NeffRefused(
        f"{name} is not what was exported: {why}", hint="export it again, and compile what is there then"
    )


def _call(program: Key) -> dict[str, Any]:
    flags, topology = assembly.flags(program), assembly.topology(program)
    return {
        "argv": [toolchain.NAME, *command(flags, topology)],
        "environment": environment(flags, topology),
    }


def _tensors(name: str, program: Key, graph: Graph) -> dict[str, Any]:
    """What each tensor of the graph is, in order."""
    mesh = _mesh(program)
    inputs = [_tensor(input_name(i), record, mesh) for i, record in enumerate(graph.inputs)]
    outputs = [_tensor(output_name(i), record, mesh) for i, record in enumerate(graph.outputs)]
    return {
        "program": name,
        "graph": graph.code.sha256,
        "mesh": list(mesh.items()),
        "inputs": inputs,
        "outputs": outputs,
    }


def _mesh(program: Key) -> dict[str, int]:
    mesh: Any = program.values["mesh"]
    return {str(axis): int(size) for axis, size in mesh}


def _tensor(name: str, record: TensorSpec, mesh: Mapping[str, int]) -> dict[str, Any]:
    fields = msgspec.to_builtins(record)
    part = Distribution.of(record.shape, record.dtype, record.spec, mesh).part_shape
    return {**fields, "name": name, "tensor": record.name, "part": list(part)}


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
