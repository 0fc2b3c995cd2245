"""From one rank's graph to a NEFF, with what a bundle says of it. Graphs and NEFFs are results of their own.

A graph is the same for all flags and compilers: where none is installed it is made and kept, and later only
the compile remains. A NEFF is the same for all sources that give the same graph, and compiles take long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ltx_cache.blobref import BlobRef
from ltx_cache.key import Factor, Key
from ltx_cache.store import Hit, Store
from ltx_run.bundle import Blob, Census, Memory, TensorInput, TensorSpec, WeightInput
from ltxbuild.errors import ToolMissing
from ltxbuild.neuron import toolchain
from ltxbuild.neuron.command import command, environment
from ltxbuild.neuron.compile import compile_graph
from ltxbuild.plan.results import as_form, look_up

Lower = Callable[[], dict[str, Any]]


class Graph(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What neuronx-cc reads, and what the program's record says of it."""

    code: Blob
    inputs: tuple[WeightInput | TensorInput, ...]
    outputs: tuple[TensorSpec, ...]
    memory: Memory
    flops: float
    census: Census


class Neff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What neuronx-cc made of a graph."""

    code: Blob


def assemble(
    name: str, program: Key, store: Store, lower: Lower, stop: threading.Event | None = None
) -> Mapping[str, Any]:
    """The executable of a program, and what its record says beside what the plan knows.

    Args:
        name: Of the program, for messages and the log.
        program: Its key.
        store: Where graphs and NEFFs are kept.
        lower: Makes the graph, as the compile process gives it.
        stop: Set by another thread when nobody wants the result any more.

    Raises:
        ToolMissing: The NEFF is not there, nor the compiler; the graph is kept.
        BuildFailed: The compiler refused the graph.
        CancelledError: `stop` was set before the NEFF was there.
    """
    stop = stop or threading.Event()
    started = time.monotonic()
    graph = lowered(program, store, lower)
    lowered_at = time.monotonic()
    key = neff_key(program, graph)
    found = look_up(store, key, Neff)
    if isinstance(found, Hit):
        neff = as_form(found.value, Neff)
    else:
        compiler = _compiler(version(program))
        with store.lock("neuronx-cc", cancelled=stop.is_set):  # each takes tens of gigabytes
            neff = keep(key, _compile(name, program, graph, compiler, store, stop), store)
    return {
        "executable": msgspec.to_builtins(neff.code),
        "runtime": f"{toolchain.NAME} {version(program)}",
        "features": [topology(program), f"lnc{flags(program)['lnc']}"],
        "memory": {**msgspec.to_builtins(graph.memory), "code": neff.code.size},
        "flops": graph.flops,
        "census": msgspec.to_builtins(graph.census),
        "inputs": msgspec.to_builtins(graph.inputs),
        "outputs": msgspec.to_builtins(graph.outputs),
        "reused": isinstance(found, Hit),
        "seconds": {"lower": lowered_at - started, "compile": time.monotonic() - lowered_at},
    }


def lowered(program: Key, store: Store, lower: Lower) -> Graph:
    """The graph of a program, made if the store lacks it."""
    found = kept_graph(program, store)
    if found is not None:
        return found
    made = lower()
    parts = {name: made[name] for name in ("inputs", "outputs", "memory", "flops", "census")}
    for record in parts["inputs"]:
        if record["kind"] == "tensor":
            record["donated"] = False  # a NEFF's results have memory of their own
    graph = as_form({"code": made["executable"], **parts}, Graph)
    store.put_entry(graph_key(program), msgspec.to_builtins(graph), [ref(graph.code)])
    return graph


def kept_graph(program: Key, store: Store) -> Graph | None:
    """The graph of a program, if the store has it."""
    found = look_up(store, graph_key(program), Graph)
    return as_form(found.value, Graph) if isinstance(found, Hit) else None


def graph_key(program: Key) -> Key:
    """Key of a program's graph: all that the program depends on but the compiler."""
    apart = ("flags", "tools")
    return Key("graph", tuple(factor for factor in program.factors if factor.name not in apart))


def flags(program: Key) -> dict[str, Any]:
    """Flags of the compiler."""
    found = program.values["flags"]
    assert isinstance(found, dict)
    return found


def topology(program: Key) -> str:
    """The chip."""
    found = program.values["target"]
    assert isinstance(found, dict)
    return str(found["topology"])


def version(program: Key) -> str:
    """The compiler's version that is planned with."""
    found = program.values["tools"]
    assert isinstance(found, dict)
    return str(found[toolchain.NAME])


def neff_key(program: Key, graph: Graph) -> Key:
    """Key of a NEFF: everything that the compiler reads, and which one it is."""
    factors: dict[str, Any] = {
        "graph": graph.code.sha256,
        "arguments": command(flags(program), topology(program)),
        "environment": environment(flags(program), topology(program)),
        "compiler": version(program),
    }
    return Key("neff", tuple(Factor(name, value) for name, value in factors.items()))


def keep(key: Key, data: bytes, store: Store) -> Neff:
    """Publish a NEFF."""
    blob = store.put_bytes(data)
    neff = Neff(Blob(sha256=blob.sha256, size=blob.size))
    store.put_entry(key, msgspec.to_builtins(neff), [blob])
    return neff


def ref(blob: Blob) -> BlobRef:
    """A manifest's blob as the store's."""
    return BlobRef(blob.sha256, blob.size)


def _compile(
    name: str,
    program: Key,
    graph: Graph,
    compiler: toolchain.Compiler,
    store: Store,
    stop: threading.Event,
) -> bytes:
    chosen, chip = flags(program), topology(program)
    return compile_graph(
        name,
        store.open(ref(graph.code)),
        [str(compiler.path), *command(chosen, chip)],
        environment(chosen, chip),
        chosen["lnc"],
        store.log_path(name),
        stop,
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
