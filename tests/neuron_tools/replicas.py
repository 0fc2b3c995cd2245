"""Run by test_neuron_graph: executes the graphs as four replicas on CPU devices, and reports as JSON.

Usage: replicas.py FOLDER compare|write KIND...
"""

import json
import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
sys.path.insert(0, str(Path(__file__).parent))

import jax
import numpy as np
from graphs import RANKS, Array, Example, arguments, example, parts
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxlib import _jax
from jaxlib import xla_client as xla

import ltxbuild


def run(graph: bytes, given: list[list[Array]]) -> list[list[Array]]:
    """Per result the value of each rank; `given` has per parameter the value of each rank."""
    devices = jax.devices()[:RANKS]
    options = xla.CompileOptions()
    options.num_replicas = options.executable_build_options.num_replicas = RANKS
    module = _jax.mlir.xla_computation_to_mlir_module(xla.XlaComputation(graph))
    loaded = devices[0].client.compile_and_load(module, _jax.DeviceList(tuple(devices)), options)
    sharding = NamedSharding(Mesh(np.array(devices), ("rank",)), PartitionSpec("rank"))
    arrays = []
    for ranks in given:
        shards = [jax.device_put(part, device) for part, device in zip(ranks, devices, strict=True)]
        shape = (RANKS * ranks[0].shape[0], *ranks[0].shape[1:])
        arrays.append(jax.make_array_from_single_device_arrays(shape, sharding, shards))
    results = loaded.execute_sharded(arrays).disassemble_into_single_device_arrays()
    return [[np.asarray(part) for part in ranks] for ranks in results]


def cosine(a: Array, b: Array) -> float:
    """Cosine of the angle between two tensors."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def compare(chosen: Example, graph: bytes, file: Path) -> dict[str, object]:
    """The graph on four ranks against the program on one device; values go to a file."""
    lowered = chosen.lowered()
    values = arguments(lowered)
    given = parts(lowered, values)
    results = run(graph, given)
    expected = [np.asarray(value) for value in chosen.lowered(1).module.compile()(*values)]
    named = {f"{index}.{rank}": part for index, ranks in enumerate(given) for rank, part in enumerate(ranks)}
    np.savez(file, **named, **{f"result.{index}": value for index, value in enumerate(expected)})
    return {
        "cosines": [cosine(ranks[0], value) for ranks, value in zip(results, expected, strict=True)],
        "ranks_agree": all(np.array_equal(ranks[0], other) for ranks in results for other in ranks),
    }


def main(folder: Path, comparing: bool, kinds: list[str]) -> None:
    """Write each kind's graph into a folder, and compare what it computes if asked to."""
    report: dict[str, dict[str, object]] = {"package": {"file": ltxbuild.__file__}}
    for kind in kinds:
        chosen = example(kind)
        graph = chosen.graph()
        (folder / f"{kind}.hlo").write_bytes(graph)
        report[kind] = compare(chosen, graph, folder / f"{kind}.npz") if comparing else {}
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "compare", sys.argv[3:])
