"""What doctor says of machines, from what was found on them; and that it looks where drivers show."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from ltxbuild import probe
from ltxbuild.diagnosis import Check, Probe, diagnose
from ltxbuild.probe import look

BARE = Probe(
    machine="x86_64",
    features=("sse", "sse2"),
    packages={"jaxlib": "0.10.2"},
    pins={"jax": "0.10.2", "libtpu": "0.0.42.*"},
    gpus=(),
    cuda_driver=None,
    tpu=False,
    neuronx_cc=None,
    libnrt=None,
    neuron_driver=None,
    neuron_devices=0,
    neuron_cores=None,
    logical_core=None,
    token=False,
    home="/home/me/.cache/ltxbuild",
    writable=True,
    free=500_000_000_000,
)
FULL = replace(
    BARE,
    packages={
        "jax": "0.10.2",
        "jaxlib": "0.10.2",
        "jax-cuda13-plugin": "0.10.2",
        "jax-cuda13-pjrt": "0.10.2",
        "nvidia-cuda-nvcc": "13.0.88",
        "libtpu": "0.0.42.1",
        "neuronx-cc": "2.24.5133.0+58f8de22",
        "huggingface-hub": "1.2.0",
    },
    gpus=("NVIDIA H200", "NVIDIA H200"),
    cuda_driver="580.65.06",
    tpu=True,
    libnrt="2.31.24.0",
    neuron_driver="2.27.4.0",
    neuron_devices=1,
    neuron_cores=8,
    token=True,
)

STUB = {"neuronx-cc": "1.0.post1"}


def check(probe: Probe, area: str, use: str) -> Check:
    (found,) = [each for each in diagnose(probe) if (each.area, each.use) == (area, use)]
    return found


def test_machine_with_everything() -> None:
    """Nothing is missing, and what is there is named with versions and devices."""
    assert all(each.ok for each in diagnose(FULL))
    found = {part.name: part.found for part in check(FULL, "neuron", "run").parts}
    assert found == {"libnrt": "2.31.24.0", "driver": "2.27.4.0", "chip": "1, 8 cores each, LNC 2"}
    assert dict(check(FULL, "cuda", "run").parts[-1]._asdict())["found"] == "2 x NVIDIA H200"


def test_bare_machine_is_told_how_to_get_each_thing() -> None:
    """Everything that is missing has a next step."""
    checks = diagnose(BARE)
    assert [each.area for each in checks if each.ok] == ["cpu", "cache"]
    assert all(part.fix for each in checks for part in each.missing)


@pytest.mark.parametrize(
    ("changes", "area", "use", "missing", "fix"),
    [
        ({"packages": {**FULL.packages, **STUB}}, "neuron", "build", "1.0.post1 is an empty stub", "AWS's"),
        ({"libnrt": "2.30.51.0"}, "neuron", "run", "libnrt 2.31, the one for neuronx-cc 2.24", "upgrade"),
        ({"libnrt": None}, "neuron", "run", "libnrt", "aws-neuronx-runtime-lib"),
        ({"neuron_driver": None}, "neuron", "run", "driver", "aws-neuronx-dkms"),
        ({"neuron_devices": 0}, "neuron", "run", "chip", "trn2 instance"),
        ({"logical_core": "1"}, "neuron", "run", "NEURON_LOGICAL_NC_CONFIG is 1", "unset"),
        ({"cuda_driver": "550.54.15"}, "cuda", "run", "driver 580 or newer (it is 550.54.15)", "update"),
        ({"gpus": ()}, "cuda", "run", "GPU", "H100 or H200"),
        ({"tpu": False}, "tpu", "run", "TPU", "TPU VM"),
        ({"features": ()}, "cpu", "run", "CPU", "Linux or macOS"),
        ({"token": False}, "hub", "share", "token", "hf auth login"),
        ({"writable": False}, "cache", "keep", "folder", "LTX_HOME"),
    ],
)  # fmt: skip
def test_one_thing_missing(changes: dict[str, Any], area: str, use: str, missing: str, fix: str) -> None:
    """It alone is said to be missing, where it is needed, with how to get it."""
    probe = replace(FULL, **changes)
    (part,) = check(probe, area, use).missing
    assert missing in part.name
    assert fix in part.fix
    assert [(each.area, each.use) for each in diagnose(probe) if not each.ok] == [(area, use)]


def test_versions_that_accelerators_pin() -> None:
    """What the CPU takes may be too new for the others."""
    newer = replace(FULL, packages={**FULL.packages, "jax": "0.11.0", "libtpu": "0.0.51"})
    missing = {
        each.area: [part.name for part in each.missing] for each in diagnose(newer) if each.use == "build"
    }
    jax, libtpu = "jax 0.10.2 (0.11.0 is installed)", "libtpu 0.0.42.* (0.0.51 is installed)"
    assert missing == {"cpu": [], "cuda": [jax], "tpu": [jax, libtpu], "neuron": []}
    assert probe._pins() == {"jax": "0.10.2", "libtpu": "0.0.42.*"}


@pytest.mark.parametrize(
    ("compiler", "library", "ok"),
    [("2.23.6484.0", "2.34.10.0", True), ("2.99.1.0", "2.31.24.0", True), ("2.24.1.0", "", True)],
)
def test_newer_runtimes_and_unknown_versions_pass(compiler: str, library: str, ok: bool) -> None:
    """Only what is known to be too old is said to be."""
    probe = replace(FULL, packages={**FULL.packages, "neuronx-cc": compiler}, libnrt=library)
    assert check(probe, "neuron", "run").ok is ok


def test_look_finds_what_drivers_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices, versions and the token, in the files where they are on Linux."""
    files = {
        "proc/driver/nvidia/gpus/0000:3b:00.0/information": "Model: \t\t NVIDIA H200\nIRQ: 5\n",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06\n",
        "sys/module/neuron/version": "2.27.4.0\n",
        "sys/devices/virtual/neuron_device/neuron0/core_count": "8\n",
        "dev/neuron0": "",
        "dev/neuron_ctl": "",
        "lib/libnrt.so.2.31.24.0": "",
        "hf/token": "hf_x",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "lib/libnrt.so.1").symlink_to("libnrt.so.2.31.24.0")
    monkeypatch.setattr(probe, "version", {"neuronx-cc": "2.24.5133.0"}.__getitem__)
    monkeypatch.setattr(probe, "PackageNotFoundError", KeyError)
    found = look(
        tmp_path, {"LD_LIBRARY_PATH": str(tmp_path / "lib"), "HF_HOME": str(tmp_path / "hf"), "PATH": ""}
    )
    assert found.gpus == ("NVIDIA H200",)
    assert (found.cuda_driver, found.libnrt, found.neuron_driver) == ("580.65.06", "2.31.24.0", "2.27.4.0")
    assert (found.neuron_devices, found.neuron_cores, found.token) == (1, 8, True)
    assert found.packages == {"neuronx-cc": "2.24.5133.0"}


def test_nobody_has_no_token(tmp_path: Path) -> None:
    """A folder of a user that the machine doesn't know holds none."""
    assert not look(tmp_path, {"HF_TOKEN_PATH": "~nobody-of-that-name/token", "PATH": ""}).token


def test_what_this_user_may_not_look_at_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that can't be searched is what doctor shall tell of, not fail with."""
    closed = tmp_path / "closed"

    def guarded(really: Callable[[Path], bool]) -> Callable[[Path], bool]:
        def check(path: Path) -> bool:
            if closed in path.parents:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return really(path)

        return check

    closed.mkdir()
    for name in ("exists", "is_file"):
        monkeypatch.setattr(Path, name, guarded(getattr(Path, name)))
    monkeypatch.setattr(probe.os, "access", lambda path, mode: path != closed)
    monkeypatch.setenv("LTX_HOME", str(closed / "cache" / "ltxbuild"))
    hidden = {"HF_HOME": str(closed / "hf"), "LD_LIBRARY_PATH": str(closed / "lib"), "PATH": ""}
    found = look(tmp_path, hidden)
    assert (found.writable, found.token, found.libnrt) == (False, False, None)
    assert found.free > 0
    monkeypatch.setattr(probe.shutil, "disk_usage", Mock(side_effect=PermissionError))
    assert look(tmp_path, hidden).free == 0


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "580.65.06"),
        ("something else", None),
    ],
)
def test_versions_of_nvidias_driver(tmp_path: Path, said: str, version: str | None) -> None:
    """Of the open module and of the other one."""
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text(said)
    assert probe._cuda_driver(tmp_path) == version


def test_command(tmp_path: Path) -> None:
    """It says the same as a table and as JSON, ends with 0, and imports no framework."""
    script = (
        "import sys; from ltxbuild.cli.main import cli; cli(sys.argv[1:], standalone_mode=False); "
        "print([m for m in ('jax', 'jaxlib', 'huggingface_hub') if m in sys.modules], file=sys.stderr)"
    )
    ran = [
        subprocess.run(
            [sys.executable, "-c", script, "doctor", *options], capture_output=True, text=True, check=True
        )
        for options in ((), ("--json",))
    ]
    assert [each.stderr for each in ran] == ["[]\n", "[]\n"]
    report = json.loads(ran[1].stdout)
    assert [each["for"] for each in report if each["to"] == "run"] == ["cpu", "cuda", "tpu", "neuron"]
    assert all(name in ran[0].stdout for each in report for name in each["missing"])
