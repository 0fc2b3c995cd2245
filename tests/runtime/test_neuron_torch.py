"""The loader over torch-neuronx, on a stand-in for it: what is handed over, and what is refused.

The stand-in knows the calls and the fields of its messages, from NxDModel's source. That the real one takes
them together can only be seen on a device.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from neuron_programs import RANKS, WEIGHTS, Files, program, values

from ltx_run.errors import DeviceUnavailable, ProgramFailed
from ltx_run.neuron import torch_loader
from ltx_run.neuron.signature import Signature
from ltx_run.neuron.torch_loader import TorchLoader

SIGNATURE = Signature.of("step", program())


class Repeated(list[Any]):
    """A repeated field of a message."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self._kind = kind

    def add(self) -> Any:
        self.append(self._kind())
        return self[-1]


class MetaTensor:
    FLOAT, INT32, USER_INPUT, INPUT_WEIGHT = 1, 2, 1, 3
    name = checkpoint_key = b""
    data_type = type = 0

    def __init__(self) -> None:
        self.shape: list[int] = []


class MetaNeff:
    num_user_inputs = num_weights = 0

    def __init__(self) -> None:
        self.input_tensors, self.output_tensors = Repeated(MetaTensor), Repeated(MetaTensor)

    def SerializeToString(self) -> MetaNeff:  # noqa: N802  as protobuf calls it
        return self


class SPMDModel:
    """Sums all f32 inputs of a rank, as the libnrt for tests does."""

    def __init__(self, neff: bytes, meta: MetaNeff, local: int, world: int) -> None:
        assert neff == b"neff"
        assert (local, world) == (RANKS, RANKS)
        self.meta = meta
        self.weights: list[dict[str, torch.Tensor]] = []

    def initialize(self, states: Any, weights: list[dict[str, torch.Tensor]], start_rank: int) -> None:
        assert (states, start_rank) == ([{}], 0)
        for tensor in self.meta.input_tensors:
            if tensor.type == MetaTensor.INPUT_WEIGHT:
                assert list(weights[0][tensor.checkpoint_key.decode()].shape) == tensor.shape
        self.weights = weights

    def forward_ranked(self, ranked: list[list[torch.Tensor]]) -> list[list[torch.Tensor]]:
        if not self.weights:
            raise RuntimeError("not initialized")
        results = []
        for rank, given in enumerate(ranked):
            floats = [*self.weights[rank].values(), *(x for x in given if x.dtype == torch.float32)]
            total = rank + sum(float(x.sum()) for x in floats)
            results.append([torch.full(t.shape, total) for t in self.meta.output_tensors])
        return results


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Stands in for torch-neuronx 2.13; holds what was copied to the cores."""
    copied: list[Any] = []

    def parallel_load(ranks: list[dict[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
        copied.append(ranks)
        return ranks

    neuron = SimpleNamespace(SPMDModel=SPMDModel, _parallel_load=parallel_load)
    stand_in = SimpleNamespace(
        classes=SimpleNamespace(neuron=neuron),
        ops=SimpleNamespace(neuron=neuron),
        **{name: getattr(torch, name) for name in ("from_numpy", "uint8", "float32", "int32")},
    )
    messages = ModuleType("torch_neuronx.proto.metaneff_pb2")
    messages.MetaNeff, messages.MetaTensor = MetaNeff, MetaTensor  # type: ignore[attr-defined]
    found = {"torch": stand_in, "torch_neuronx": None, messages.__name__: messages}
    monkeypatch.setattr(torch_loader, "version", lambda package: "2.9.0.2.13.24727+8e870898")
    monkeypatch.setattr(torch_loader, "import_module", found.__getitem__)
    yield copied
    assert "torch_neuronx" not in sys.modules


def ready(files: Files) -> tuple[TorchLoader, dict[int, int]]:
    loader = TorchLoader(RANKS)
    loader.load(SIGNATURE, b"neff", 0)
    keys = {index: 10 + index for index in range(len(WEIGHTS))}
    for index, key in keys.items():
        record = SIGNATURE.program.inputs[index]
        loader.put(key, record.name, files.opened.places(record, SIGNATURE.inputs[index]))
    return loader, keys


def test_results_follow_from_weights_and_values_of_each_rank(installed: list[Any], files: Files) -> None:
    """As with libnrt; an input that isn't given keeps its values."""
    loader, keys = ready(files)
    loader.warm_up("step", keys)
    loader.execute("step", values(1))
    index = len(WEIGHTS)
    whole, split = loader.execute("step", {index: values(2)[index]})
    sums = files.sums({**values(1), index: values(2)[index]})
    assert np.array_equal(whole, np.full((2, 3), sums[0], np.float32))
    assert np.array_equal(split[:, 0], np.repeat(np.array(sums, np.float32), 2))


def test_weights_are_copied_once_for_all_programs(installed: list[Any], files: Files) -> None:
    """A second program is bound to those that are there."""
    loader, keys = ready(files)
    loader.warm_up("step", keys)
    loader.load(Signature.of("other", program()), b"neff", 0)
    loader.warm_up("other", keys)
    assert [sorted(ranks[0]) for ranks in installed] == [["10", "11", "12"]]
    loader.close()


def test_failures_have_its_words(installed: list[Any], files: Files) -> None:
    """What torch-neuronx raises is an error of the program."""
    loader, _ = ready(files)
    loader._values["step"] = {}
    with pytest.raises(ProgramFailed, match="torch-neuronx failed: not initialized"):
        loader.execute("step", values(1))


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, "torch-neuronx is not installed"),
        ("1.0", "torch-neuronx 1.0 is a stub without code"),
        ("2.8.0.2.10.13553+1e4dd6ca", r"torch-neuronx is 2\.8\.0.*; this loader is for 2\.11 to 2\.15"),
        ("2.10.0.2.16.1", r"this loader is for 2\.11 to 2\.15"),
    ],
)
def test_what_is_not_usable_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: str | None, message: str
) -> None:
    """Before anything of it is imported."""

    def found(package: str) -> str:
        if version is None:
            raise PackageNotFoundError
        return version

    monkeypatch.setattr(torch_loader, "version", found)
    with pytest.raises(DeviceUnavailable, match=message):
        TorchLoader(RANKS)
