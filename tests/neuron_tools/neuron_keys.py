"""Keys and graphs of programs for Neuron that never were: what its assembler reads of them."""

from __future__ import annotations

from typing import Any

import neuronx_cc

from ltx_cache.key import Factor, Key
from ltx_cache.store import Store
from ltxbuild.targets import target

FLAGS = dict(target("neuron").flags("denoise"))
GRAPH = b"a graph"


def neuron_key(**changes: Any) -> Key:
    """Key of a program, as far as the assembler reads it."""
    factors = {
        "program": "denoise_step",
        "mesh": [["tp", 4]],
        "target": {"platform": "neuron", "topology": "trn2"},
        "flags": FLAGS,
        "tools": {"neuronx-cc": neuronx_cc.VERSION},
        "sources": "0",
    } | changes
    return Key("program", tuple(Factor(name, value) for name, value in factors.items()))


class Lower:
    """The compile process, which counts how often it is asked."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.count = 0

    def __call__(self) -> dict[str, Any]:
        self.count += 1
        blob = self.store.put_bytes(GRAPH)
        tensor = {
            "kind": "tensor",
            "name": "video",
            "shape": [1, 2],
            "dtype": "float32",
            "spec": [None, None],
        }
        return {
            "executable": {"sha256": blob.sha256, "size": blob.size},
            "runtime": "",
            "features": [],
            "memory": {"arguments": 8, "outputs": 8, "temp": 0, "code": 7},
            "flops": 1.0,
            "census": {"collectives": [], "temporaries": []},
            "inputs": [{**tensor, "donated": True}],
            "outputs": [{name: value for name, value in tensor.items() if name != "kind"}],
            "reused": False,
            "seconds": {"lower": 1.0, "compile": 0.0},
        }
