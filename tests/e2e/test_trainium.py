"""From the compile command to a video on Trainium2, with stand-ins for Neuron's compiler, runtime and chip.

The stand-in for the compiler puts the graph that it is given into the NEFF. That for the runtime hands
tensors to a process that executes this graph, as it is, as four replicas on CPU devices. What comes out
is compared with the programs of one CPU: what is between them is ours, the graphs, the weights of each
rank, the names, the loader.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import mock_nrt
import neuronx_cc
import pytest
from systems import F32, SIZE, Run, System, cosine, distance, start

pytestmark = pytest.mark.xdist_group("e2e")

RECIPE = f"""
precision: float32
target: {{isa: native}}
variants: {{default: {{height: {SIZE.height}, width: {SIZE.width}, frames: {SIZE.frames}, fps: 24}}}}
"""
SESSIONS, PROGRAMS, RANKS, STEPS = 2, 3, 4, 8 + 3
KEPT = ("context.video", "context.audio", "latent.stage1.video", "latent.stage2.video", "frames", "waveform")


class Trainium:
    """The command lines on a machine with Neuron's tools; `calls` is what libnrt was called for."""

    def __init__(self, system: System, folder: Path) -> None:
        library, compiler = folder / "nrt", folder / "cc"
        library.mkdir()
        mock_nrt.build(library)
        neuronx_cc.install(compiler)
        self.log, self.socket = folder / "calls", folder / "chip"
        self.environment = {
            "PATH": f"{compiler}{os.pathsep}{os.environ['PATH']}",
            "LD_LIBRARY_PATH": str(library),
            "MOCK_NRT_LOG": str(self.log),
            "MOCK_NRT_MEMORY": str(library),
            "MOCK_NRT_DEVICE": str(self.socket),
        }
        self.system = copy.copy(system)
        self.system._environment = system._environment | self.environment
        self.bundle = self.system.compile(self.system.extend("trn2_two_stage.yaml", "e2e-trn2", RECIPE))

    def calls(self) -> Counter[str]:
        """How often each function was called, and what was left."""
        lines = self.log.read_text().splitlines()
        return Counter(line if line.startswith("left") else line.split()[0] for line in lines)

    def fails(self, video: Path, **options: str) -> tuple[int, str]:
        """Exit code and standard error of a run with other options of libnrt."""
        command = [
            str(Path(sys.executable).with_name("ltx-run")),
            self.bundle,
            "--prompt",
            "rain",
            "--no-prompt-cache",
        ]
        environment = self.system._environment | options
        done = subprocess.run(
            [*command, "-q", "-o", str(video)], env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr


@pytest.fixture(scope="module")
def trainium(system: System, tmp_path_factory: pytest.TempPathFactory) -> Trainium:
    return Trainium(system, tmp_path_factory.mktemp("trn2"))


@pytest.fixture(scope="module")
def ran(trainium: Trainium) -> Iterator[Run]:
    """A run from given noise, with the chip there."""
    script = Path(mock_nrt.__file__).with_name("mock_device.py")
    with subprocess.Popen([sys.executable, str(script), str(trainium.socket)]) as chip:
        while not trainium.socket.exists():
            assert chip.poll() is None
            time.sleep(0.1)
        yield trainium.system.run(trainium.bundle, start(F32, two_stage=True), options=["--no-prompt-cache"])
        chip.kill()


def test_same_video_as_on_a_cpu(system: System, ran: Run, float32: str) -> None:
    """What a run keeps agrees with what unsharded programs make, up to the order of sums in f32."""
    expected = system.run(float32, start(F32, two_stage=True)).tensors
    for name in KEPT:
        assert cosine(ran.tensors[name], expected[name]) > 0.999999, name
        assert distance(ran.tensors[name], expected[name]) < 1e-3, name
    assert (ran.tensors["frames"].int() - expected["frames"].int()).abs().max() <= 1


def test_each_component_has_the_cores_for_itself(trainium: Trainium, ran: Run) -> None:
    """Two sessions: the text encoder's, and one in which both stages share the transformer's weights."""
    calls = trainium.calls()
    assert calls["nrt_init"] == calls["left tensors=0 sets=0 models=0"] == SESSIONS
    assert calls["nrt_load_collectives"] == calls["nrt_unload"] == PROGRAMS * RANKS
    assert calls["nrt_execute"] == (PROGRAMS + 1 + STEPS) * RANKS
    programs = trainium.system.manifest(trainium.bundle)["programs"].values()
    ours = [program for program in programs if program["fingerprint"]["platform"] == "neuron"]
    weights, values = set(), 0
    for program in ours:
        values += len(program["outputs"])
        for record in program["inputs"]:
            if record["kind"] == "weight":
                weights.add((program["weights"], record["name"], record["layer"]))
            else:
                values += 1
    assert len(ours) == PROGRAMS
    assert calls["nrt_tensor_allocate"] == (len(weights) + values) * RANKS


@pytest.mark.parametrize(
    ("faults", "code", "words"),
    [
        ("nrt_load_collectives:2:4", 1, "(NRT_RESOURCE, 4)"),
        ("nrt_execute:3:5", 1, "(NRT_TIMEOUT, 5)"),
        ("nrt_init:1:9", 3, "(NRT_LOAD_NOT_ENOUGH_NC, 9)"),
        ("nrt_load_collectives:1:10", 3, "(NRT_UNSUPPORTED_NEFF_VERSION, 10)"),
        ("nrt_execute:1:1200", 1, "(NRT_EXEC_HW_ERR_COLLECTIVES, 1200)"),
    ],
)
def test_failures_of_the_device(
    trainium: Trainium, ran: Run, tmp_path: Path, faults: str, code: int, words: str
) -> None:
    """A message with the code and one hint; no video, no traceback."""
    video = tmp_path / "out.mp4"
    exit_code, said = trainium.fails(video, MOCK_NRT_FAULTS=faults)
    assert exit_code == code, said
    assert words in said
    assert said.count("hint:") == 1
    assert "Traceback" not in said
    assert not video.exists()


def test_machine_without_a_runtime(trainium: Trainium, tmp_path: Path) -> None:
    """It is said before anything is loaded, with the command that installs it."""
    exit_code, said = trainium.fails(tmp_path / "out.mp4", LD_LIBRARY_PATH="")
    assert exit_code == 3
    assert "there is no libnrt.so.1" in said
    assert "aws-neuronx-runtime-lib" in said
