"""Run by test_neuron_graph with a jax of its own: an old XLA parses, verifies and executes graphs.

Usage: old_xla.py FOLDER KIND...; reads what replicas.py left, and reports as JSON.
"""

import json
import os
import sys
from pathlib import Path

RANKS = 4
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={RANKS}"

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jaxlib import xla_client as xla  # noqa: E402


def main(folder, kinds):
    client = jax.devices("cpu")[0].client
    report = {}
    for kind in kinds:
        computation = xla.XlaComputation((folder / f"{kind}.hlo").read_bytes())
        text = computation.as_hlo_text()
        options = xla.CompileOptions()
        options.num_replicas = RANKS
        module = xla._xla.mlir.xla_computation_to_mlir_module(computation)
        program = client.compile(module, options)
        values = np.load(folder / f"{kind}.npz")
        count = sum(1 for name in values if name.endswith(".0") and not name.startswith("result"))
        arguments = [
            [
                client.buffer_from_pyval(np.ascontiguousarray(values[f"{index}.{rank}"]), device)
                for rank, device in enumerate(client.devices())
            ]
            for index in range(count)
        ]
        results = program.execute_sharded(arguments).disassemble_into_single_device_arrays()
        report[kind] = {
            "sums": text.count(" all-reduce("),
            "grouped": text.count("replica_groups={{0,1,2,3}}"),
            "named": text.count("neff_input_names"),
            "differences": [
                float(np.abs(np.asarray(part) - values[f"result.{index}"]).max())
                / float(np.abs(values[f"result.{index}"]).max())
                for index, parts in enumerate(results)
                for part in parts
            ],
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
