"""Several processes that make one video, over the loopback interface."""

from __future__ import annotations

import _thread
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from runtime_helpers import PROMPT

from ltx_run import coordinator, meeting, multihost
from ltx_run.cluster import Place, chosen, found
from ltx_run.errors import BadCluster, PeerLost
from ltx_run.peers import Peers
from ltx_run.safetensors import SafetensorsFile

RUN = """
import sys
from ltx_run.cli import cli
from ltx_run.console import guarded
def run(**mode):
    cli(sys.argv[1:], **mode)
    assert "jax" not in sys.modules
"""
WHOLE = f"{RUN}\nguarded(run)"
DIES = f"""{RUN}
import os, signal
from ltx_run.programs import Programs
call = Programs.call
def dying(self, name, *rest):
    if name == "denoise_step" and name in self._loaded:
        os.kill(os.getpid(), signal.SIGKILL)
    return call(self, name, *rest)
Programs.call = dying
guarded(run)
"""
FAILS = f"""{RUN}
from ltx_run.errors import ProgramFailed
from ltx_run.programs import Programs
def failing(self, name, *rest):
    raise ProgramFailed(f"program {{name}} is out of luck")
Programs.call = failing
guarded(run)
"""

DOWNLOADS = f"""{RUN}
import time
from ltx_run import launch
find = launch.find
def late(*rest, **named):
    time.sleep(4)
    print("there at", time.time(), file=sys.stderr)
    return find(*rest, **named)
launch.find = late
guarded(run)
"""
NOTES = f"""{RUN}
import time
from ltx_run import launch
prepare = launch.prepare
def noting(*rest, **named):
    print("there at", time.time(), file=sys.stderr)
    return prepare(*rest, **named)
launch.prepare = noting
guarded(run)
"""

JAX = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}
Ended = tuple[int, str, str]


@pytest.fixture(scope="session")
def wide_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy for four devices, with results that every device holds whole."""
    folder = tmp_path_factory.mktemp("wide") / "toy"
    script = str(Path(__file__).with_name("toy.py"))
    subprocess.run([sys.executable, script, str(folder), "4", "whole"], check=True, stdout=subprocess.PIPE)
    return folder


@pytest.fixture
def together(wide_bundle: Path, tmp_path: Path) -> Callable[..., list[Ended]]:
    """Runs the command as two processes, each with a cache of its own."""

    def run(first: str, second: str, *options: Sequence[str]) -> list[Ended]:
        port = _free_port()
        arguments = [str(wide_bundle), "-p", PROMPT, "-o", str(tmp_path / "out.mp4"), "--processes", "2"]
        arguments += ["--coordinator", f"127.0.0.1:{port}"]
        started = [
            subprocess.Popen(
                [sys.executable, "-c", script, *arguments, "--process", str(number), *more],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "LTX_HOME": str(tmp_path / f"home{number}")},
            )
            for number, (script, more) in enumerate(zip((first, second), options or ((), ()), strict=True))
        ]
        ended = [process.communicate(timeout=60) for process in started]
        return [(process.returncode, *texts) for process, texts in zip(started, ended, strict=True)]

    return run


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _alone(bundle: Path, folder: Path) -> SafetensorsFile:
    """What one process makes."""
    arguments = [str(bundle), "-p", PROMPT, "-o", str(folder / "alone.mp4"), "--no-prompt-cache"]
    arguments += ["--tensors-out", str(folder / "alone.safetensors")]
    subprocess.run([sys.executable, "-c", WHOLE, *arguments], check=True, stdout=subprocess.PIPE)
    return SafetensorsFile(folder / "alone.safetensors")


def _frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def test_two_processes_make_the_same_video_as_one(
    wide_bundle: Path, together: Callable[..., list[Ended]], tmp_path: Path
) -> None:
    """Process 0 writes what one process would; the other one loads what they share and writes nothing."""
    more = ("--tensors-out", str(tmp_path / "both.safetensors"), "--json")
    ended = together(WHOLE, WHOLE, more, more)
    assert [code for code, _, _ in ended] == [0, 0], ended
    reports = [json.loads(output) for _, output, _ in ended]
    assert [len(report["videos"]) for report in reports] == [1, 0]
    assert [program["name"] for program in reports[1]["programs"]] == ["text_encoder", "denoise_step"]

    alone, both = _alone(wide_bundle, tmp_path), SafetensorsFile(tmp_path / "both.safetensors")
    assert sorted(alone.header.entries) == sorted(both.header.entries)
    for name in alone.header.entries:
        one, two = alone.view(name), both.view(name)
        # Sums over devices are taken in another order.
        assert np.abs(one.astype(np.float64) - two.astype(np.float64)).max() <= (name == "frames") + 1e-6, (
            name
        )
    shown = zip(_frames(tmp_path / "alone.mp4"), _frames(tmp_path / "out.mp4"), strict=True)
    assert max(np.abs(one.astype(int) - two.astype(int)).max() for one, two in shown) <= 3


def test_each_process_needs_its_own_shards_alone(
    wide_bundle: Path, together: Callable[..., list[Ended]], tmp_path: Path
) -> None:
    """A file of rank 3 that is gone is missed by process 1, and process 0 says so too."""
    from ltx_run.bundle import decode
    from ltx_run.lookup import MANIFEST

    blob = decode((wide_bundle / MANIFEST).read_bytes()).weights["transformer"].ranks[3]
    path = wide_bundle / "blobs" / blob.sha256
    hidden = path.rename(tmp_path / "hidden")
    try:
        (first, _, heard), (second, _, said) = together(WHOLE, WHOLE)
    finally:
        hidden.rename(path)
    assert (first, second) == (1, 1)
    assert "error: bundle" in said
    assert f"lacks weights transformer ({blob.sha256[:12]})" in said
    assert "error: process 1 failed: bundle" in heard


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_process_ends_the_other(together: Callable[..., list[Ended]], victim: int) -> None:
    """The other one stops waiting for it within seconds, with one message."""
    started = time.monotonic()
    scripts = [WHOLE, WHOLE]
    scripts[victim] = DIES
    ended = together(*scripts)
    code, _, errors = ended[1 - victim]
    assert ended[victim][0] == -9
    assert code == 1
    assert f"error: process {victim} ended without a word: it was killed" in errors
    assert "Traceback" not in errors
    assert "Check failure stack trace" not in errors
    assert time.monotonic() - started < 30


def test_failing_process_says_why_to_the_other(together: Callable[..., list[Ended]], tmp_path: Path) -> None:
    """Both end with the reason, and no video is left."""
    (first, _, heard), (second, _, said) = together(WHOLE, FAILS)
    assert (first, second) == (1, 1)
    assert "error: program text_encoder is out of luck" in said
    assert "error: process 1 failed: program text_encoder is out of luck" in heard
    assert not list(tmp_path.glob("*.mp4*"))


def test_processes_started_differently_are_refused(together: Callable[..., list[Ended]]) -> None:
    """Another seed in one process would give a video of two halves."""
    (first, _, heard), (second, _, said) = together(WHOLE, WHOLE, (), ("--seed", "4"))
    assert (first, second) == (1, 2)
    assert "process 1 was started with another bundle, prompt, seed or option than process 0" in said
    assert "error: process 1 failed: process 1 was started with another" in heard


def test_code_of_the_working_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the coordinator: a file there that has a library's name is no part of the run."""
    (tmp_path / "jaxlib.py").write_text("raise SystemExit('not this one')\n")
    monkeypatch.chdir(tmp_path)
    service, _ = multihost._serve({}, 1)
    service.communicate(f"{coordinator.DONE}\n", timeout=60)
    assert service.returncode == 0


def test_late_process_is_waited_for_before_devices_are_opened(together: Callable[..., list[Ended]]) -> None:
    """Devices, once opened, wait five minutes for those of the others; a download takes longer."""
    ended = together(DOWNLOADS, NOTES)
    assert [code for code, _, _ in ended] == [0, 0], ended
    came, began = (float(errors.split("there at ")[1].split()[0]) for _, _, errors in ended)
    assert began >= came


class Service:
    """jaxlib's client in tests: notes what it is asked, and waits for `opened`, or fails."""

    def __init__(self, what: str = "", fails: bool = False) -> None:
        self.asked: list[str] = []
        self.opened = threading.Event()
        self._what, self._fails = what, fails

    def wait_at_barrier(self, name: str, _: int) -> None:
        """Wait as one in C++ does."""
        self.asked.append(name)
        if self._fails:
            raise RuntimeError("UNAVAILABLE: the service is gone")
        self.opened.wait(20)

    def key_value_try_get(self, name: str) -> str:
        """What process 0 was started with."""
        self.asked.append(name)
        return hashlib.sha256(self._what.encode()).hexdigest()


def test_processes_gather_before_they_compare() -> None:
    """What process 0 was started with is there when it is asked for."""
    service = Service("all")
    service.opened.set()
    multihost.agree(Peers(1, 2, service), "all")
    assert service.asked == ["ltx-run/what", "ltx-run/what"]
    with pytest.raises(BadCluster, match="process 1 was started with another"):
        multihost.agree(Peers(1, 2, service), "something else")


def test_gathering_can_be_interrupted() -> None:
    """By the user, or by lifelines when another process is gone."""
    service, started = Service(), time.monotonic()
    threading.Timer(0.3, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        multihost.gather(Peers(1, 2, service), "ready")
    assert time.monotonic() - started < 10
    service.opened.set()


def test_gathering_that_fails_is_a_lost_peer() -> None:
    """An exception of jaxlib's is no bug of this program."""
    with pytest.raises(PeerLost, match=r"process 1 waited in vain for the others \(ready\): UNAVAILABLE"):
        multihost.gather(Peers(1, 2, Service(fails=True)), "ready")


def test_process_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits in vain says for whom; a port that is taken, and two of the same number, are refused."""
    monkeypatch.setattr(meeting, "MEETING", 0.5)
    port = _free_port()
    with pytest.raises(PeerLost, match="processes 1, 2 didn't come in 0 s"):
        meeting.meet(Place(f"localhost:{port}", 0, 3))
    with pytest.raises(PeerLost, match=f"process 0 can't be reached at localhost:{port}"):
        meeting.meet(Place(f"localhost:{port}", 1, 3))
    with meeting._server(port), pytest.raises(BadCluster, match=f"port {port} can't be opened"):
        meeting.meet(Place(f"localhost:{port}", 0, 3))


@pytest.mark.parametrize(("number", "processes"), [(1, 4), (0, 3), (3, 3)])
def test_processes_that_contradict_each_other(number: int, processes: int) -> None:
    """Another number of processes, or a number that is none of the others', ends the meeting."""
    port = _free_port()
    with ThreadPoolExecutor() as threads:
        zero = threads.submit(meeting.meet, Place(f"localhost:{port}", 0, 3))
        while True:
            try:
                with socket.create_connection(("localhost", port)) as end:
                    end.sendall(meeting._hello(number, processes))
                    break
            except ConnectionRefusedError:
                time.sleep(0.05)
        with pytest.raises(BadCluster, match=f"process {number} of {processes} came"):
            zero.result(10)


def test_strangers_are_not_taken_for_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says nothing, too little or something else is let go, and the meeting goes on."""
    monkeypatch.setattr(meeting, "HELLO_TIME", 0.2)
    port, ends = _free_port(), list[socket.socket]()
    with ThreadPoolExecutor() as threads:
        zero = threads.submit(meeting.meet, Place(f"localhost:{port}", 0, 2))
        while not zero.done() and not ends:
            with suppress(ConnectionRefusedError):
                ends.append(socket.create_connection(("localhost", port)))
        for words in (b"\0\0\0\1\0\0\0\2", b"GET / HTTP/1.1\r\n\r\n"):
            ends.append(socket.create_connection(("localhost", port)))
            ends[-1].sendall(words)
        socket.create_connection(("localhost", port)).close()
        one = threads.submit(meeting.meet, Place(f"localhost:{port}", 1, 2))
        found = [*zero.result(20).items(), *one.result(20).items()]
    assert [number for number, _ in found] == [1, 0]
    found[0][1].sendall(b"welcome")
    assert found[1][1].recv(7) == b"welcome"
    for end in [*ends, *dict(found).values()]:
        end.close()


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        (
            JAX,
            Place("a:1", 2, 4),
        ),
        (
            {
                "SLURM_STEP_NODELIST": "n[007,9-12],m3",
                "SLURM_JOB_ID": "4098",
                "SLURM_PROCID": "1",
                "SLURM_NTASKS": "6",
            },
            Place("n007:61442", 1, 6),
        ),
        (
            {
                "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
                "OMPI_COMM_WORLD_RANK": "0",
                "OMPI_COMM_WORLD_SIZE": "2",
            },
            Place(f"10.96.0.1:{61440 + 1531576320 // 4096 % 4096}", 0, 2),
        ),
        (
            {
                "OMPI_MCA_orte_hnp_uri": "4096.0;tcp6://[fe80::b9b]:43370",
                "OMPI_COMM_WORLD_RANK": "0",
                "OMPI_COMM_WORLD_SIZE": "2",
            },
            Place("[fe80::b9b]:61441", 0, 2),
        ),
        ({"TPU_WORKER_HOSTNAMES": "10.0.0.2,10.0.0.3", "TPU_WORKER_ID": "1"}, Place("10.0.0.2:8482", 1, 2)),
    ],
)
def test_clusters_say_which_process_this_is(environment: dict[str, str], place: Place) -> None:
    """What jax finds in the same variables; Slurm's list of hosts is abbreviated."""
    assert found(environment) == place
    assert chosen((None, None, None), environment) == place
    assert chosen(("b:2", None, None), environment) == place._replace(coordinator="b:2")


def test_incomplete_places_are_refused() -> None:
    """What is missing or contradicts itself is named."""
    assert chosen((None, None, None), None) is None
    for given, environment, words in (
        (("a:1", None, 2), None, "--process is missing"),
        (("a:1", 2, 2), None, "there is no process 2 of 2"),
        (("a", 0, 2), None, "needed is HOST:PORT"),
        (("a:84760", 0, 2), None, "'a:84760', needed is HOST:PORT with a port from 1 to 65535"),
        (("a:0", 1, 2), None, "'a:0', needed is HOST:PORT with a port from 1 to 65535"),
        (("a:" + 5000 * "1", 1, 2), None, "needed is HOST:PORT"),
        ((None, None, None), {**JAX, "JAX_COORDINATOR_ADDRESS": "a:65536"}, "needed is HOST:PORT"),
        ((None, None, None), {}, "no cluster has said"),
        ((None, None, None), {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "x"}, "TPU_WORKER_ID=x"),
    ):
        with pytest.raises(BadCluster, match=words):
            chosen(given, environment)
