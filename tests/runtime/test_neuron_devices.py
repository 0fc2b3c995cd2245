"""Sessions on the device: what begins and ends one, what is written again, what a failure leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mock_nrt
import msgspec
import numpy as np
import pytest
from neuron_programs import RANKS, WEIGHTS, Files, Mock, program, tensors_of, values

from ltx_run.errors import BundleInvalid, DeviceUnavailable, ProgramFailed
from ltx_run.neuron import loaders, nrt
from ltx_run.neuron.devices import Devices, Executable
from ltx_run.neuron.signature import Signature
from ltx_run.peers import ALONE
from ltx_run.platforms import neuron
from ltx_run.weights import Place

PROGRAM = program()
NEFF = mock_nrt.neff(tensors_of(Signature.of("step", PROGRAM)))


class Recorder:
    """A runner that writes down what it is asked to do."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def load(self, signature: Signature, neff: bytes, needed: int) -> None:
        self.log.append(f"load {signature.name} {needed}")

    def put(self, key: int, name: str, places: Sequence[Place]) -> None:
        self.log.append(f"put {name}")

    def free(self, key: int) -> None:
        self.log.append("free")

    def warm_up(self, name: str, weights: Mapping[int, int]) -> None:
        self.log.append(f"warm up {name}")

    def execute(self, name: str, changed: Mapping[int, np.ndarray]) -> list[np.ndarray]:
        if name == "bad":
            raise ProgramFailed("it fails")
        self.log.append(f"execute {name} {sorted(changed)}")
        return [np.zeros((2, 3), np.float32), np.ones((8, 2), np.float32)]

    def unload(self, name: str) -> None:
        self.log.append(f"unload {name}")

    def close(self) -> None:
        self.log.append("close")


class Rig:
    """Devices on recorders, and how `Programs` uses them."""

    def __init__(self, files: Files) -> None:
        self.log: list[str] = []
        self.files = files
        self.devices = Devices(self._start)

    def _start(self, cores: int, lnc: int) -> Recorder:
        self.log.append(f"start {cores} {lnc}")
        return Recorder(self.log)

    def ready(self, name: str, weights: dict[int, Any] | None = None) -> tuple[Executable, dict[int, Any]]:
        executable = self.devices.load(name, PROGRAM, NEFF)
        if weights is None:
            records = enumerate(PROGRAM.inputs[: len(WEIGHTS)])
            weights = {i: executable.put_weight(i, record, self.files.opened) for i, record in records}
        executable.warm_up(weights)
        return executable, weights


@pytest.fixture
def rig(files: Files) -> Rig:
    return Rig(files)


def call(executable: Executable, weights: dict[int, Any], given: dict[int, Any]) -> list[np.ndarray]:
    """As `Loaded.call` does it."""
    arguments = [*weights.values(), *(executable.argument(i, value) for i, value in given.items())]
    return [result.numpy() for result in executable.execute(arguments)]


def test_loading_touches_no_device(rig: Rig) -> None:
    """It happens while another component is on it."""
    rig.devices.load("step", PROGRAM, NEFF)
    assert rig.log == []


def test_session_ends_with_the_last_of_its_programs_and_weights(rig: Rig) -> None:
    """Programs that share weights are in one session, with the weights there once; then comes another."""
    total, weights_only = Signature.of("", PROGRAM).part_bytes, 48 + 60 + 16
    half, weights = rig.ready("half")
    full, _ = rig.ready("full", weights)
    del half
    del full
    weights.clear()
    last = rig.ready("other")
    assert rig.log == [
        "start 4 2",
        f"load half {total}",
        *("put split", "put whole", "put stack", "warm up half"),
        f"load full {total - weights_only}",
        "warm up full",
        *("unload half", "unload full", "free", "free", "close"),
        "start 4 2",
        f"load other {total}",
        *("put split", "put whole", "put stack", "warm up other"),
    ]
    del last
    assert rig.log[-1] == "close"


def test_only_other_objects_are_written_again(rig: Rig) -> None:
    """The same array or tensor as in the last call stays on the device; a result given back is another."""
    executable, weights = rig.ready("step")
    given = values(1)
    first = call(executable, weights, given)
    video = len(WEIGHTS)
    call(executable, weights, {**given, video: first[0]})
    call(executable, weights, given)
    assert rig.log[-3:] == ["execute step [3, 4, 5]", "execute step [3]", "execute step [3]"]
    assert not first[0].flags.writeable
    assert given[video].flags.writeable


def test_failure_ends_the_session(rig: Rig) -> None:
    """What else is in it fails with the same words; what comes later has a session of its own."""
    executable, weights = rig.ready("bad")
    other, _ = rig.ready("step", weights)
    with pytest.raises(ProgramFailed, match="it fails"):
        call(executable, weights, values(1))
    assert rig.log[-1] == "close"
    with pytest.raises(ProgramFailed, match="it fails"):
        call(other, weights, values(1))
    del executable, other, weights
    again, weights = rig.ready("step")
    call(again, weights, values(1))
    assert rig.log.count("close") == 1


def test_owner_that_goes_amid_a_call(rig: Rig) -> None:
    """It is freed after the call, not within it: the other process does one thing at a time."""
    executable, weights = rig.ready("step")
    other, _ = rig.ready("other", weights)
    session = weights[0].session

    def collected(runner: Recorder) -> None:
        nonlocal other
        del other
        assert "unload other" not in rig.log

    session.run(collected)
    del weights[0], executable
    assert {"unload other", "unload step"} <= set(rig.log)


def test_no_neff_and_other_forms(rig: Rig) -> None:
    """What is no NEFF is refused on the host; programs for other cores can't be there at the same time."""
    with pytest.raises(BundleInvalid, match=r"program step: .*less than a NEFF's header"):
        rig.devices.load("step", PROGRAM, b"nothing")
    kept = rig.ready("step")
    other = mock_nrt.neff(tensors_of(Signature.of("step", PROGRAM)), lnc=1)
    with pytest.raises(BundleInvalid, match="NEFF is for logical cores of 1, its record says trn2 lnc2"):
        rig.devices.load("small", PROGRAM, other)
    features = msgspec.structs.replace(PROGRAM.fingerprint, features=("trn2", "lnc1"))
    small = msgspec.structs.replace(PROGRAM, fingerprint=features)
    with pytest.raises(BundleInvalid, match=r"4 cores of size 1 can't be .* beside one for 4 of size 2"):
        rig.devices.load("small", small, other).warm_up({})
    assert kept


@pytest.mark.parametrize("loader", ["libnrt", "libnrt-in-process"])
def test_with_a_runtime(mock: Mock, files: Files, monkeypatch: pytest.MonkeyPatch, loader: str) -> None:
    """Both places for it give the same; in this process the runtime goes on, elsewhere it is closed."""
    monkeypatch.setenv("LTX_NEURON_LOADER", loader)
    for name in ("VISIBLE_CORES", "EXEC_TIMEOUT", "ROOT_COMM_ID", "STOCHASTIC_ROUNDING_EN"):
        monkeypatch.delenv(f"NEURON_RT_{name}", raising=False)
    monkeypatch.setenv("NEURON_LOGICAL_NC_CONFIG", "2")
    rig = Rig(files)
    rig.devices = Devices(loaders.start)
    for seed in (1, 2):
        executable, weights = rig.ready("step")
        whole, split = call(executable, weights, values(seed))
        assert whole[1, 2] == files.sums(values(seed))[0]
        assert split[7, 1] == files.sums(values(seed))[3]
        del executable, weights
    counts = mock.counts()
    assert counts["nrt_close"] == counts["nrt_init"] - (loader == "libnrt-in-process")
    assert counts["nrt_tensor_free"] == counts["nrt_tensor_allocate"]
    assert counts["nrt_unload"] == counts["nrt_load_collectives"] == 2 * RANKS


def test_obstacles(mock: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing library and settings that don't fit are told before anything is loaded."""
    needed = PROGRAM.fingerprint
    assert neuron.obstacles(needed, ALONE) == ()
    monkeypatch.setenv("NEURON_LOGICAL_NC_CONFIG", "1")
    assert "NEURON_LOGICAL_NC_CONFIG is 1" in neuron.obstacles(needed, ALONE)[0].reason
    monkeypatch.delenv("NEURON_LOGICAL_NC_CONFIG")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    ((reason, advice),) = neuron.obstacles(needed, ALONE)
    assert "no libnrt.so.1 in /opt/aws/neuron/lib" in reason
    assert "aws-neuronx-runtime-lib" in advice


def test_library_that_is_none(mock: Mock) -> None:
    """A file that can't be loaded is named, with the loader's words."""
    (mock.folder / "libnrt.so.1").write_text("no library")
    with pytest.raises(DeviceUnavailable, match=r"libnrt.so.1 can't be loaded: .*file too short"):
        nrt.load(mock.folder / "libnrt.so.1")
