"""The toy bundle, built once per session for one and for four host devices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mock_nrt
import msgspec
import pytest
from filelock import FileLock
from neuron_programs import Files, Mock
from runtime_helpers import Inside

from ltx_run.bundle import Bundle, decode, encode
from ltx_run.lookup import MANIFEST


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Toy bundle directories by device count."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # shared by the workers of a session
    folders = {devices: root / f"toy{devices}" for devices in (1, 4)}
    with FileLock(root / "toys.lock"):
        if not all((folder / MANIFEST).is_file() for folder in folders.values()):
            _build(folders)
    return folders


def _build(folders: dict[int, Path]) -> None:
    script = str(Path(__file__).with_name("toy.py"))
    builds = [
        subprocess.Popen([sys.executable, script, str(folder), str(devices)], stderr=subprocess.PIPE)
        for devices, folder in folders.items()
    ]
    for build in builds:
        _, errors = build.communicate()
        assert build.returncode == 0, errors.decode()


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test, not yet there."""
    path = tmp_path_factory.mktemp("home") / "cache"
    monkeypatch.setenv("LTX_HOME", str(path))
    return path


@pytest.fixture
def toy_bundle(bundles: dict[int, Path], tmp_path: Path) -> Path:
    """A copy of the one-device bundle that a test may damage."""
    return Path(shutil.copytree(bundles[1], tmp_path / "toy"))


@pytest.fixture
def edit(toy_bundle: Path) -> Callable[..., Path]:
    """Replaces fields of the copied bundle's manifest."""

    def replaced(**changes: object) -> Path:
        manifest: Bundle = decode((toy_bundle / MANIFEST).read_bytes())
        manifest = msgspec.structs.replace(manifest, **changes)
        (toy_bundle / MANIFEST).write_bytes(encode(manifest))
        return toy_bundle

    return replaced


@pytest.fixture
def inside(capsys: pytest.CaptureFixture[str]) -> Inside:
    """`ltx-run` in this process."""
    return Inside(capsys)


@pytest.fixture(scope="session")
def nrt_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The libnrt for tests, compiled."""
    return mock_nrt.build(tmp_path_factory.mktemp("nrt"))


@pytest.fixture
def mock(nrt_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mock:
    """A copy of it that nobody has started, as the one that is found."""
    folder = tmp_path / "nrt"
    folder.mkdir()
    shutil.copy(nrt_library, folder)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    mock = Mock(folder, monkeypatch)
    mock.set(log=folder / "calls", memory=folder)
    return mock


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Weight files of the program in `neuron_programs`."""
    folder = tmp_path / "weights"
    folder.mkdir()
    return Files(folder)
