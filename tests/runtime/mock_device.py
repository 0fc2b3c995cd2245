"""The chip of `mock_nrt.c`: executes the graph in a NEFF as four replicas on CPU devices.

Run as: python mock_device.py SOCKET. A request is "load NEFF", answered by a line for each tensor, or
"run NEFF" and a line "RANK NAME FILE" for each tensor of each rank, answered by a status. Lines end with
a line ".".
"""

from __future__ import annotations

import os
import re
import socketserver
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
# Each graph runs a few times: code that is made quickly is better than quick code.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"

import jax
import ml_dtypes
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxlib import _jax
from jaxlib import xla_client as xla

HEADER, RANKS = 1024, 4
DTYPES: dict[str, tuple[Any, int]] = {
    "f32": (np.float32, 10),
    "bf16": (ml_dtypes.bfloat16, 6),
    "f16": (np.float16, 7),
    "s32": (np.int32, 8),
    "u32": (np.uint32, 9),
    "s8": (np.int8, 2),
    "u8": (np.uint8, 3),
    "pred": (np.bool_, 3),
}
"""By XLA's names: numpy's dtype and the runtime's code."""


class Model:
    """One NEFF's graph, by the names that the graph itself gives its tensors."""

    def __init__(self, neff: bytes) -> None:
        self._computation = xla.XlaComputation(neff[HEADER:])
        text = self._computation.as_hlo_text()
        entry = text[text.index("\nENTRY ") :]
        parameters = re.findall(
            r" = (\w+)\[([\d,]*)\]\S* parameter\((\d+)\).*neff_input_names=\"(\w+)\"", entry
        )
        parameters.sort(key=lambda found: int(found[2]))
        self.inputs = {name: self._tensor(dtype, shape) for dtype, shape, _, name in parameters}
        root = re.search(r"ROOT \S+ = \((.*?)\) tuple\(.*neff_output_names=\"([\w,]+)\"", entry)
        assert root
        results = re.findall(r"(\w+)\[([\d,]*)\]", re.sub(r"{[\d,]*}|/\*.*?\*/", "", root[1]))
        names = root[2].split(",")
        self.outputs = {name: self._tensor(*each) for name, each in zip(names, results, strict=True)}
        self._devices = jax.devices()
        self._loaded: Any = None

    @staticmethod
    def _tensor(dtype: str, shape: str) -> tuple[Any, int, tuple[int, ...]]:
        return *DTYPES[dtype], tuple(int(n) for n in shape.split(",") if n)

    def describe(self) -> Iterator[str]:
        """A line for each tensor: name, usage, bytes, dtype."""
        for usage, tensors in enumerate((self.inputs, self.outputs)):
            for name, (dtype, code, shape) in tensors.items():
                yield f"{name} {usage} {int(np.prod(shape)) * np.dtype(dtype).itemsize} {code}\n"

    def run(self, files: dict[tuple[int, str], str]) -> None:
        """Execute on all ranks at once; a file holds each tensor."""
        results = self._executable().execute_sharded([self._argument(name, files) for name in self.inputs])
        for name, ranks in zip(self.outputs, results.disassemble_into_single_device_arrays(), strict=True):
            for rank, value in enumerate(ranks):
                dtype, _, shape = self.outputs[name]
                np.memmap(files[rank, name], dtype, "r+", shape=shape or (1,))[...] = np.asarray(value)

    def _executable(self) -> Any:
        if self._loaded is None:
            options = xla.CompileOptions()
            options.num_replicas = options.executable_build_options.num_replicas = RANKS
            module = _jax.mlir.xla_computation_to_mlir_module(self._computation)
            client = self._devices[0].client
            self._loaded = client.compile_and_load(module, _jax.DeviceList(tuple(self._devices)), options)
        return self._loaded

    def _argument(self, name: str, files: dict[tuple[int, str], str]) -> jax.Array:
        dtype, _, shape = self.inputs[name]
        parts = [np.memmap(files[rank, name], dtype, "r", shape=shape) for rank in range(RANKS)]
        shards = [jax.device_put(p, d) for p, d in zip(parts, self._devices, strict=True)]
        mesh = Mesh(np.array(self._devices), ("rank",))
        whole = (RANKS * shape[0], *shape[1:]) if shape else ()
        sharding = NamedSharding(mesh, PartitionSpec("rank") if shape else PartitionSpec())
        return jax.make_array_from_single_device_arrays(whole, sharding, shards)


@cache
def model(neff: bytes) -> Model:
    """The model of a NEFF, made once."""
    return Model(neff)


class Handler(socketserver.StreamRequestHandler):
    """One libnrt, which asks one thing after the other."""

    def handle(self) -> None:
        known: dict[str, Model] = {}
        while line := self.rfile.readline().decode():
            verb, path = line.split()
            if verb == "load":
                known[path] = model(Path(path).read_bytes())
                self.wfile.write("".join([*known[path].describe(), ".\n"]).encode())
            else:
                known[path].run(self._files())
                self.wfile.write(b"0\n")

    def _files(self) -> dict[tuple[int, str], str]:
        files = {}
        while (line := self.rfile.readline().decode()) != ".\n":
            rank, name, path = line.split()
            files[int(rank), name] = path
        return files


if __name__ == "__main__":
    with socketserver.UnixStreamServer(sys.argv[1], Handler) as server:
        server.serve_forever()
