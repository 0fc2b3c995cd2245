"""Programs on a libnrt of our own: order of calls, what is written, what is freed, and every way to fail."""

from __future__ import annotations

import re
import time

import mock_nrt
import numpy as np
import pytest
from neuron_programs import RANKS, WEIGHTS, Files, Mock, program, tensors_of, values

from ltx_cache.errors import LtxError
from ltx_run.errors import BundleInvalid, DeviceUnavailable, ProgramFailed
from ltx_run.neuron import ranks
from ltx_run.neuron.engine import Engine
from ltx_run.neuron.settings import Limits
from ltx_run.neuron.signature import Signature
from ltx_run.neuron.status import STATUSES, check

SIGNATURE = Signature.of("step", program())
LIMITS = Limits(load=5, execute=5)


def neff(**header: int) -> bytes:
    return mock_nrt.neff(tensors_of(SIGNATURE), **header)


def put_weights(engine: Engine, files: Files) -> dict[int, int]:
    """Put all weights; keys by parameter number."""
    keys = {}
    for index, record in enumerate(SIGNATURE.program.inputs[: len(WEIGHTS)]):
        keys[index] = 100 + index
        engine.put(keys[index], record.name, files.opened.places(record, SIGNATURE.inputs[index]))
    return keys


def ready(files: Files) -> Engine:
    """An engine with the program on it."""
    engine = Engine(RANKS, LIMITS)
    engine.load(SIGNATURE, neff(), SIGNATURE.part_bytes)
    engine.warm_up("step", put_weights(engine, files))
    return engine


def test_results_follow_from_weights_and_values_of_each_rank(mock: Mock, files: Files) -> None:
    """Each rank has its own part of split weights, its layer of stacked ones, and all of the others."""
    engine = ready(files)
    changing = values(1)
    whole, split = engine.execute("step", changing)
    sums = files.sums(changing)
    assert np.array_equal(whole, np.full((2, 3), sums[0]))
    assert np.array_equal(split, np.repeat(np.array(sums), 2)[:, None].repeat(2, axis=1))


def test_only_what_changed_is_written(mock: Mock, files: Files) -> None:
    """An input that is not given keeps what it had on the device."""
    engine = ready(files)
    first, later = values(1), values(2)
    engine.execute("step", first)
    before = mock.counts()["nrt_tensor_write"]
    index = len(WEIGHTS)
    whole, _ = engine.execute("step", {index: later[index]})
    assert mock.counts()["nrt_tensor_write"] - before == RANKS
    assert whole[0, 0] == files.sums({**first, index: later[index]})[0]


def test_calls_in_order(mock: Mock, files: Files) -> None:
    """The machine is looked at and the NEFF compared before weights are written; then it is warmed up."""
    engine = ready(files)
    engine.close()
    called = mock.names()
    order = [
        "nrt_init",
        "nrt_get_version",
        "nrt_get_instance_info",
        "nrt_get_visible_vnc_count",
        "nrt_get_vnc_memory_stats",
        "nrt_load_collectives",
        "nrt_get_model_tensor_info",
        "nrt_tensor_allocate",
        "nrt_tensor_write",
        "nrt_allocate_tensor_set",
        "nrt_execute",
        "nrt_destroy_tensor_set",
        "nrt_unload",
        "nrt_close",
    ]
    assert sorted(order, key=called.index) == order
    loads = [line for line in mock.calls() if line.startswith("nrt_load_collectives")]
    assert sorted(loads) == [f"nrt_load_collectives core={r} count=-1 rank={r} world=4" for r in range(RANKS)]


def test_nothing_is_left(mock: Mock, files: Files) -> None:
    """Unloading gives all memory back; closing leaves no tensor, set or model."""
    engine = ready(files)
    assert engine.clear() == 0
    engine.close()
    assert mock.left() == "left tensors=0 sets=0 models=0"


def test_two_programs_share_weights_on_the_device(mock: Mock, files: Files) -> None:
    """A second program is bound to the same tensors, and the first one can go."""
    engine = Engine(RANKS, LIMITS)
    other = Signature.of("other", program())
    engine.load(SIGNATURE, neff(), SIGNATURE.part_bytes)
    keys = put_weights(engine, files)
    engine.warm_up("step", keys)
    engine.load(other, neff(), 0)
    engine.warm_up("other", keys)
    engine.unload("step")
    whole, _ = engine.execute("other", values(3))
    assert whole[0, 0] == files.sums(values(3))[0]
    named = [line for line in mock.calls() if line.startswith("nrt_tensor_allocate") and "name=split" in line]
    assert len(named) == RANKS


@pytest.mark.parametrize("code", sorted(STATUSES))
def test_every_status_has_a_message_and_a_next_step(code: int) -> None:
    """None is empty, and each is raised as a failure of the work or of the machine."""
    with pytest.raises(LtxError, match=rf"can't load it: .+ \(\w+, {code}\)") as caught:
        check(code, "load it")
    assert caught.value.hint
    assert caught.value.exit_code == (3 if code in (9, 10, 1005) else 1)


@pytest.mark.parametrize(
    ("function", "nth", "code", "kind"),
    [
        ("nrt_init", 1, 9, DeviceUnavailable),
        ("nrt_load_collectives", 3, 4, ProgramFailed),
        ("nrt_load_collectives", 1, 10, DeviceUnavailable),
        ("nrt_tensor_allocate", 5, 4, ProgramFailed),
        ("nrt_tensor_write", 3, 2, ProgramFailed),
        ("nrt_add_tensor_to_tensor_set", 7, 1, ProgramFailed),
        ("nrt_execute", 2, 5, ProgramFailed),
        ("nrt_execute", 4, 1200, ProgramFailed),
    ],
)
def test_a_failing_call_is_an_error_that_leaves_nothing(
    mock: Mock, files: Files, function: str, nth: int, code: int, kind: type[LtxError]
) -> None:
    """Whatever fails while a program gets ready, its code is in the message and all memory comes back."""
    mock.set(faults=f"{function}:{nth}:{code}")
    engines: list[Engine] = []

    def get_ready() -> None:
        engines.append(Engine(RANKS, LIMITS))
        engines[0].load(SIGNATURE, neff(), 0)
        engines[0].warm_up("step", put_weights(engines[0], files))

    with pytest.raises(kind, match=rf"\({STATUSES[code].name}, {code}\)"):
        get_ready()
    for engine in engines:
        assert engine.clear() == 0
        engine.close()
        assert mock.left() == "left tensors=0 sets=0 models=0"


def test_failure_while_it_runs(mock: Mock, files: Files) -> None:
    """The rank that failed is named."""
    engine = ready(files)
    mock.set(faults="nrt_execute:6:1200 nrt_execute:5:1200 nrt_execute:7:1200 nrt_execute:8:1200")
    with pytest.raises(ProgramFailed, match=r"execute program step on core [0-3].*COLLECTIVES, 1200"):
        engine.execute("step", values(1))


def test_numbers_that_are_none_fail_a_call_and_not_the_warm_up(mock: Mock, files: Files) -> None:
    """Zeros may lead to what is no number in a sound program; real values may not."""
    mock.set(faults=" ".join(f"nrt_execute:{nth}:1003" for nth in range(1, 9)))
    engine = ready(files)
    with pytest.raises(ProgramFailed, match="NUM_ERR, 1003"):
        engine.execute("step", values(1))


def test_a_rank_that_hangs_is_given_up(mock: Mock, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the limit the rank is named; the engine then refuses at once."""
    monkeypatch.setattr(ranks, "GRACE", 2.0)
    engine = Engine(RANKS, Limits(load=0.5, execute=0.5))
    mock.set(faults="nrt_load_collectives:2:hang")
    with pytest.raises(
        ProgramFailed, match=r"can't load program step: no answer from rank [0-3, ]+ in 0.5 s"
    ):
        engine.load(SIGNATURE, neff(), 0)
    started = time.monotonic()
    with pytest.raises(ProgramFailed, match="no answer"):
        engine.load(SIGNATURE, neff(), 0)
    assert time.monotonic() - started < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": 2}, "for trn2, this instance is trn1"),
        ({"family": 99}, "unknown family 99"),
        ({"version": "2.26"}, r"runtime is 2\.26, needed is 2\.27"),
        ({"hbm": 1000}, "step needs .* on core 0, of 1.0 kB there 1.0 kB are free"),
    ],
)
def test_machine_that_lacks_something(mock: Mock, options: dict[str, object], message: str) -> None:
    """It is refused with both values, before the NEFF is loaded."""
    mock.set(**options)
    with pytest.raises(DeviceUnavailable, match=message):
        Engine(RANKS, LIMITS).load(SIGNATURE, neff(), 2000)
    assert "nrt_load_collectives" not in mock.names()


def test_too_few_cores(mock: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cores that this process may not have don't count."""
    monkeypatch.setenv("NEURON_RT_VISIBLE_CORES", "0-1")
    with pytest.raises(DeviceUnavailable, match="needs 4 NeuronCores, this process sees 2"):
        Engine(RANKS, LIMITS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found[1:], "it has no input input0"),
        (lambda found: [*found, ("rank", 0, 4, 8)], "it has an input rank, the manifest hasn't"),
        (lambda found: [("input0", 0, 12, 10), *found[1:]], "input0 has 12 bytes on a core, .* says 48"),
        (lambda found: [("input0", 0, 48, 8), *found[1:]], "input0 is of the runtime's dtype 8, .* float32"),
        (lambda found: found[:-1], "it has no output output1"),
    ],
)
def test_neff_that_contradicts_its_record(mock: Mock, change: object, message: str) -> None:
    """It is refused before any weight is written, and unloaded."""
    engine = Engine(RANKS, LIMITS)
    other = mock_nrt.neff(change(tensors_of(SIGNATURE)))  # type: ignore[operator]
    with pytest.raises(BundleInvalid, match=message):
        engine.load(SIGNATURE, other, 0)
    assert "nrt_tensor_write" not in mock.names()
    assert engine.clear() == 0


def test_wrong_size_of_logical_cores_and_newer_neff(mock: Mock) -> None:
    """The runtime's own refusal comes through."""
    engine = Engine(RANKS, LIMITS)
    with pytest.raises(ProgramFailed, match="NRT_FAILURE"):
        engine.load(SIGNATURE, neff(lnc=1), 0)
    with pytest.raises(DeviceUnavailable, match="UNSUPPORTED_NEFF_VERSION") as caught:
        engine.load(SIGNATURE, neff(major=3), 0)
    assert re.search("apt-get install --only-upgrade", caught.value.hint or "")
