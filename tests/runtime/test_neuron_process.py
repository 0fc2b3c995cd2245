"""The process that holds the cores: same results, own environment, and every way to lose it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mock_nrt
import numpy as np
import pytest
from neuron_programs import RANKS, WEIGHTS, Files, Mock, program, tensors_of, values

from ltx_run.errors import BundleInvalid, DeviceUnavailable, ProgramFailed
from ltx_run.neuron import process, settings
from ltx_run.neuron.process import Process
from ltx_run.neuron.settings import Limits
from ltx_run.neuron.signature import Signature

SIGNATURE = Signature.of("step", program())
NEFF = mock_nrt.neff(tensors_of(SIGNATURE))


def started(limits: Limits | None = None) -> Process:
    """A process with the environment that a run gives it."""
    own = settings.environment(os.environ, RANKS, 2, 1)
    return Process(RANKS, {**os.environ, **own}, limits or Limits(load=20, execute=20))


def ready(files: Files, limits: Limits | None = None) -> Process:
    """A process with the program on the cores."""
    running = started(limits)
    running.load(SIGNATURE, NEFF, SIGNATURE.part_bytes)
    keys = {}
    for index, record in enumerate(SIGNATURE.program.inputs[: len(WEIGHTS)]):
        keys[index] = index
        running.put(index, record.name, files.opened.places(record, SIGNATURE.inputs[index]))
    running.warm_up("step", keys)
    return running


def test_same_as_in_this_process(mock: Mock, files: Files) -> None:
    """Values go over and results come back; they outlive later calls; the end leaves nothing."""
    running = ready(files)
    first = running.execute("step", values(1))
    index = len(WEIGHTS)
    second = running.execute("step", {index: values(2)[index]})
    assert first[0][0, 0] == files.sums(values(1))[0]
    assert second[1][2, 0] == files.sums({**values(1), index: values(2)[index]})[1]
    assert np.array_equal(first[1][:, 0], np.repeat(files.sums(values(1)), 2))
    running.unload("step")
    running.close()
    assert mock.left() == "left tensors=0 sets=0 models=0"


def test_code_of_the_working_folder_is_not_run(
    mock: Mock, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file there that has a library's name is no part of the run."""
    (tmp_path / "numpy.py").write_text("raise SystemExit('not this one')\n")
    monkeypatch.chdir(tmp_path)
    ready(files).close()
    assert mock.left() == "left tensors=0 sets=0 models=0"


def test_offline(mock: Mock, files: Files) -> None:
    """Nothing that it does counts as reaching the network."""
    script = """
import os, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
from pathlib import Path
from ltx_run.offline import refuse_connections
from neuron_programs import Files, values
from test_neuron_process import ready
refuse_connections()
running = ready(Files(Path(sys.argv[2])))
running.execute("step", values(1))
running.close()
"""
    subprocess.run([sys.executable, "-c", script, os.pathsep.join(sys.path), files.folder], check=True)
    assert mock.left() == "left tensors=0 sets=0 models=0"


def test_worker_ends_with_its_parent(mock: Mock, files: Files) -> None:
    """A parent that is killed leaves no process on the cores, and nothing on the device."""
    script = """
import os, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
from pathlib import Path
from neuron_programs import Files
from test_neuron_process import ready
running = ready(Files(Path(sys.argv[2])))
print(running._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    command = [sys.executable, "-c", script, os.pathsep.join(sys.path), str(files.folder)]
    worker = int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}/stat").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert mock.left() == "left tensors=0 sets=0 models=0"


def test_errors_come_over_with_their_class_and_hint(mock: Mock) -> None:
    """A refusal of the machine stays one; a NEFF that contradicts its record too."""
    mock.set(faults="nrt_load_collectives:1:9")
    with pytest.raises(DeviceUnavailable, match=r"LOAD_NOT_ENOUGH_NC, 9\)") as caught:
        started().load(SIGNATURE, NEFF, 0)
    assert "neuron-ls" in (caught.value.hint or "")
    mock.set(faults="")
    with pytest.raises(BundleInvalid, match="has no input input0"):
        started().load(SIGNATURE, mock_nrt.neff(tensors_of(SIGNATURE)[1:]), 0)


def test_weights_that_are_gone(mock: Mock, files: Files) -> None:
    """A file that can't be read is named; no traceback of the other process."""
    (files.folder / "2.safetensors").unlink()
    with pytest.raises(ProgramFailed, match=r"No such file or directory: .*2\.safetensors") as caught:
        ready(files)
    assert "Traceback" not in caught.value.message


def test_process_that_is_killed(mock: Mock, files: Files) -> None:
    """The signal is in the message."""
    running = ready(files)
    os.kill(running._process.pid, signal.SIGKILL)
    with pytest.raises(ProgramFailed, match="killed by signal 9"):
        running.execute("step", values(1))
    running.close()


def test_process_that_hangs_is_ended(mock: Mock, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that can't even report that it is stuck."""
    monkeypatch.setattr(process, "SLACK", -19.0)
    mock.set(faults="nrt_tensor_write:1:hang")
    with pytest.raises(
        ProgramFailed, match=r"can't copy weight split: no answer in 1 s; its process was ended"
    ):
        ready(files)


def test_stuck_rank_is_reported_by_the_process(mock: Mock, files: Files) -> None:
    """Which rank it is; what the runtime printed is shown as well."""
    mock.set(faults="nrt_execute:5:hang nrt_execute:6:hang nrt_execute:7:hang nrt_execute:8:hang")
    running = ready(files, Limits(load=20, execute=1))
    with pytest.raises(ProgramFailed, match="no answer from rank 0, 1, 2, 3 in 1 s"):
        running.execute("step", values(1))
    running.close()
    assert running._process.poll() is not None


def test_what_the_runtime_prints_is_in_the_error(mock: Mock, tmp_path: Path) -> None:
    """Its last lines, since the reason is there and not in the code."""
    mock.set(device=tmp_path / "nobody")
    with pytest.raises(ProgramFailed, match=r"killed by signal 6\n.*MOCK_NRT_DEVICE: No such file"):
        started().load(SIGNATURE, mock_nrt.packed(b"something else"), 0)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller has set stays; the size of logical cores must agree."""
    assert settings.environment({"NEURON_RT_VISIBLE_CORES": "4-7"}, 4, 2, 16387) == {
        "NEURON_RT_VISIBLE_CORES": "4-7",
        "NEURON_LOGICAL_NC_CONFIG": "2",
        "NEURON_RT_EXEC_TIMEOUT": "600",
        "NEURON_RT_ROOT_COMM_ID": "127.0.0.1:49155",
        "NEURON_RT_STOCHASTIC_ROUNDING_EN": "0",
    }
    assert settings.environment({}, 1, 1, 1)["NEURON_RT_VISIBLE_CORES"] == "0"
    for name in ("NEURON_LOGICAL_NC_CONFIG", "NEURON_RT_VIRTUAL_CORE_SIZE"):
        with pytest.raises(DeviceUnavailable, match=f"of 2 physical ones .LNC., {name} is 1"):
            settings.environment({name: "1"}, 4, 2, 1)


def test_limits_and_loader() -> None:
    """A limit leaves the runtime time to report it; what is no number or no loader is refused."""
    assert settings.limits({"NEURON_RT_EXEC_TIMEOUT": "30"}).execute == 30 + settings.MARGIN
    with pytest.raises(DeviceUnavailable, match="NEURON_RT_EXEC_TIMEOUT is 'soon'"):
        settings.limits({"NEURON_RT_EXEC_TIMEOUT": "soon"})
    assert settings.loader({}) == "libnrt"
    with pytest.raises(DeviceUnavailable, match="LTX_NEURON_LOADER is 'other'"):
        settings.loader({"LTX_NEURON_LOADER": "other"})
