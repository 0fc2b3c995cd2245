"""From one rank's graph to a NEFF, with what a bundle says of it. Graphs and NEFFs are results of their own.

A graph is the same for all flags and compilers: where none is installed it is made and kept, and later only
the compile remains. A NEFF is the same for all sources that give the same graph, and compiles take long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ltx_cache.blobref import BlobRef
from ltx_cache.key import Factor, Key
from ltx_cache.store import Hit, Store
from ltx_run.bundle import Blob, Memory, TensorInput, TensorSpec, WeightInput
from ltxbuild.errors import ToolMissing
from ltxbuild.neuron import toolchain
from ltxbuild.neuron.command import command, environment
from ltxbuild.neuron.compile import compile_graph
from ltxbuild.plan.keys import graph_key
from ltxbuild.plan.planner import PlannedProgram
from ltxbuild.plan.results import look_up


class Graph(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What neuronx-cc reads, and what the program's record says of its tensors."""

    code: Blob
    inputs: tuple[WeightInput | TensorInput, ...]
    outputs: tuple[TensorSpec, ...]
    memory: Memory


class Neff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What neuronx-cc made of a graph."""

    code: Blob


def assemble(item: PlannedProgram, store: Store, lower: Callable[[], dict[str, Any]]) -> Mapping[str, Any]:
    """The executable of a program, and what its record says beside what the plan knows.

    Args:
        item: The program.
        store: Where graphs and NEFFs are kept.
        lower: Makes the graph, as the compile process gives it.

    Raises:
        ToolMissing: The NEFF is not there, nor the compiler; the graph is kept.
        BuildFailed: The compiler refused the graph.
    """
    started = time.monotonic()
    graph = lowered(item.key, store, lower)
    lowered_at = time.monotonic()
    key = neff_key(graph, item)
    found = look_up(store, key, Neff)
    if isinstance(found, Hit):
        neff = msgspec.convert(found.value, Neff)
    else:
        compiler = _compiler(version(item))
        with store.lock("neuronx-cc"):  # each takes tens of gigabytes
            neff = keep(key, _compile(item, graph, compiler, store), store)
    machine = f"lnc{item.placement.flags['lnc']}"
    return {
        "executable": msgspec.to_builtins(neff.code),
        "runtime": f"neuronx-cc {version(item)}",
        "features": [item.placement.target["topology"], machine],
        "memory": {**msgspec.to_builtins(graph.memory), "code": neff.code.size},
        "flops": 0.0,
        "inputs": msgspec.to_builtins(graph.inputs),
        "outputs": msgspec.to_builtins(graph.outputs),
        "reused": isinstance(found, Hit),
        "seconds": {"lower": lowered_at - started, "compile": time.monotonic() - lowered_at},
    }


def lowered(program: Key, store: Store, lower: Callable[[], dict[str, Any]]) -> Graph:
    """The graph of the program with a key, made if the store lacks it."""
    key = graph_key(program)
    found = look_up(store, key, Graph)
    if isinstance(found, Hit):
        return msgspec.convert(found.value, Graph)
    made = lower()
    parts = {name: made[name] for name in ("inputs", "outputs", "memory")}
    for record in parts["inputs"]:
        if record["kind"] == "tensor":
            record["donated"] = False  # a NEFF's results have memory of their own
    graph = msgspec.convert({"code": made["executable"], **parts}, Graph)
    store.put_entry(key, msgspec.to_builtins(graph), [_ref(graph.code)])
    return graph


def version(item: PlannedProgram) -> str:
    """The compiler's version that is planned with."""
    tools = item.key.values["tools"]
    assert isinstance(tools, dict)
    return str(tools[toolchain.NAME])


def arguments(item: PlannedProgram) -> list[str]:
    """What neuronx-cc is called with."""
    return command(item.placement.flags, item.placement.target["topology"])


def neff_key(graph: Graph, item: PlannedProgram) -> Key:
    """Key of a NEFF: everything that the compiler reads, and which one it is."""
    flags, topology = item.placement.flags, item.placement.target["topology"]
    factors: dict[str, Any] = {
        "graph": graph.code.sha256,
        "arguments": arguments(item),
        "environment": environment(flags, topology),
        "compiler": version(item),
    }
    return Key("neff", tuple(Factor(name, value) for name, value in factors.items()))


def keep(key: Key, data: bytes, store: Store) -> Neff:
    """Publish a NEFF."""
    ref = store.put_bytes(data)
    neff = Neff(Blob(sha256=ref.sha256, size=ref.size))
    store.put_entry(key, msgspec.to_builtins(neff), [ref])
    return neff


def _compile(item: PlannedProgram, graph: Graph, compiler: toolchain.Compiler, store: Store) -> bytes:
    flags, topology = item.placement.flags, item.placement.target["topology"]
    return compile_graph(
        item.spec.id,
        store.open(_ref(graph.code)),
        [str(compiler.path), *arguments(item)],
        environment(flags, topology),
        flags["lnc"],
        store.log_path(item.spec.id),
    )


def _compiler(wanted: str) -> toolchain.Compiler:
    """The installed compiler, which must be the one that is planned with."""
    found = toolchain.find()
    if found is None:
        raise ToolMissing("neuronx-cc is not installed")
    if found.version != wanted:
        raise ToolMissing(
            f"target.compiler asks for neuronx-cc {wanted}, {found.version} is installed ({found.path})",
            hint="install the other version, or change target.compiler in the recipe",
        )
    return found


def _ref(blob: Blob) -> BlobRef:
    return BlobRef(blob.sha256, blob.size)
