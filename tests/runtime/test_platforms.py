"""Programs for other platforms, with the platform's own library replaced: none of them is here."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from runtime_helpers import Accelerator, Inside, Log, job

from ltx_run import clients
from ltx_run import run as interpreter
from ltx_run.arrays import Tensor, sharding_of
from ltx_run.bundle import Bundle, Fingerprint, decode
from ltx_run.distribution import Distribution
from ltx_run.lookup import MANIFEST
from ltx_run.peers import ALONE, Peers
from ltx_run.pjrt import Devices
from ltx_run.platforms import Obstacle, cuda, obstacles, plugin, tpu, uneven
from ltx_run.safetensors import SafetensorsFile

RUNTIME = f"jaxlib {version('jaxlib')}"


def fingerprint(**changes: Any) -> Fingerprint:
    """Of a program for eight Trillium chips."""
    fields = {"platform": "tpu", "runtime": RUNTIME, "features": ("TPU v6 lite", "v6e:2x4"), "devices": 8}
    return Fingerprint(**{**fields, **changes})


@pytest.fixture
def slice_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretends that the machine has so many chips of a kind."""

    def pretend(count: int, kind: str = "TPU v6 lite") -> None:
        present = [SimpleNamespace(device_kind=kind)] * count
        fake = plugin.Plugin(
            platform="tpu",
            devices="TPU",
            extra="tpu",
            whole=True,
            library=lambda: Path("libtpu.so"),
            attached=lambda: count > 0,
            options=lambda peers: {},
        )
        monkeypatch.setattr(tpu, "PLUGIN", fake)
        monkeypatch.setattr(plugin, "client", lambda *_: SimpleNamespace(devices=lambda: present))

    return pretend


def the(found: tuple[Obstacle, ...]) -> Obstacle:
    """The only obstacle."""
    (obstacle,) = found
    return obstacle


def test_fitting_devices_are_no_obstacle(slice_of: Callable[..., None]) -> None:
    """The very slice, or one chip of it."""
    slice_of(8)
    assert obstacles(fingerprint()) == obstacles(fingerprint(devices=1)) == ()


def test_other_devices_are_named(slice_of: Callable[..., None]) -> None:
    """Another kind, too few chips, a larger network, none at all: the message has both sides."""
    slice_of(8, "TPU v5 lite")
    reason = the(obstacles(fingerprint())).reason
    assert "8 of kind TPU v6 lite (v6e:2x4), this machine has 8 of kind TPU v5 lite" in reason
    for count in (4, 16):
        slice_of(count)
        assert f"this machine has {count} of kind TPU v6 lite" in the(obstacles(fingerprint())).reason
    slice_of(0)
    assert "TPU v6 lite (v6e:2x4), this machine has no TPU" in the(obstacles(fingerprint())).reason


def test_part_of_the_gpus_will_do(slice_of: Callable[..., None]) -> None:
    """GPUs have no network that a program would know."""
    kinds = ["NVIDIA H200"] * 8
    needed = fingerprint(platform="cuda", features=("NVIDIA H200", "h200:4"), devices=4)
    assert plugin._of_devices(cuda._PLUGIN, needed, kinds, kinds[0]) == ()
    assert "has 2 of kind" in the(plugin._of_devices(cuda._PLUGIN, needed, kinds[:2], kinds[0])).reason


@pytest.mark.parametrize("fields", [{"features": ()}, {"runtime": ""}, {"devices": 0}])
def test_incomplete_fingerprints(slice_of: Callable[..., None], fields: dict[str, Any]) -> None:
    """What doesn't say which device or package it is for is neither executed nor compiled here."""
    slice_of(8)
    needed = fingerprint(**fields)
    assert "its fingerprint for tpu is incomplete" in the(obstacles(needed)).reason
    assert tpu.native(needed, ALONE) == obstacles(needed)


def test_missing_plugin_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the plugin the hint installs it, and nothing is loaded to find that out."""
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    monkeypatch.setattr(tpu, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    for platform, extra in (("tpu", "tpu"), ("cuda", "cuda13")):
        found = the(obstacles(fingerprint(platform=platform)))
        assert f"the plugin for {platform} is not installed" in found.reason
        assert found.advice == f"pip install 'ltxbuild[{extra}]'"


def test_other_build_of_a_package(slice_of: Callable[..., None]) -> None:
    """Executables are exchanged between equal versions only; the hint installs those."""
    slice_of(8)
    found = the(obstacles(fingerprint(runtime="jaxlib 0.0.1")))
    assert found.reason == f"it is compiled with jaxlib 0.0.1, installed is {version('jaxlib')}"
    assert found.advice == "pip install 'jaxlib==0.0.1'"
    assert "installed is none" in the(obstacles(fingerprint(runtime=f"{RUNTIME}, libtpux 1"))).reason


def test_processes_share_devices_evenly() -> None:
    """A program runs on one device of each process, on all of each, or on those of all processes."""
    needed = fingerprint(devices=4)
    assert uneven(needed, 8, ALONE) == uneven(needed, 4, Peers(0, 4, None)) == ()
    assert (
        "spans 4 of 8 devices, which 4 processes can't share"
        in the(uneven(needed, 8, Peers(0, 4, None))).reason
    )
    assert uneven(fingerprint(devices=1), 1, Peers(0, 2, None)) == ()


def test_foreign_bundle_exits_with_3(
    edit: Callable[..., Path], toy_bundle: Path, inside: Inside, slice_of: Callable[..., None]
) -> None:
    """The command refuses before it loads anything, with one message and one hint."""
    slice_of(0)
    manifest: Bundle = decode((toy_bundle / MANIFEST).read_bytes())
    program = msgspec.structs.replace(manifest.programs["denoise_step"], fingerprint=fingerprint())
    edit(programs=manifest.programs | {"denoise_step": program})
    code, _, errors = inside(toy_bundle, "-p", "a", "-o", toy_bundle / "out.mp4")
    assert code == 3
    assert (
        "denoise_step: it is compiled for 8 of kind TPU v6 lite (v6e:2x4), this machine has no TPU" in errors
    )
    assert "hint:" in errors
    assert not (toy_bundle / "out.mp4").exists()


@pytest.mark.parametrize("axis", [None, "tp"])
def test_results_elsewhere_are_copied_to_the_host(axis: str | None) -> None:
    """What no host pointer reaches comes back through devices of the host, whole or split."""
    devices = Accelerator(4)
    distribution = Distribution.of((8, 3), "bfloat16", (axis, None), {"tp": 4})
    values = np.arange(24).reshape(8, 3).astype(distribution.dtype)
    sharding = clients._jax.GSPMDSharding(devices.list(4), sharding_of(distribution))
    tensor = devices.put(values, distribution, sharding)
    assert np.array_equal(tensor.numpy(), values)


def test_one_run_on_two_platforms(
    edit: Callable[..., Path], toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs of two platforms hand their tensors on by way of the host, and the result is the same."""
    interpreter.run(job(toy_bundle, tmp_path, tensors_out=tmp_path / "one.safetensors"), Log())
    manifest: Bundle = decode((toy_bundle / MANIFEST).read_bytes())
    program = manifest.programs["denoise_step"]
    elsewhere = msgspec.structs.replace(program.fingerprint, platform="tpu")
    moved = msgspec.structs.replace(program, fingerprint=elsewhere)
    edit(programs=manifest.programs | {"denoise_step": moved})
    given: list[Accelerator] = []

    def devices(count: int, peers: Peers) -> Devices:
        given.append(Accelerator(count))
        return given[-1]

    monkeypatch.setattr(tpu, "obstacles", lambda *_: ())
    monkeypatch.setattr(tpu, "devices", devices)
    interpreter.run(job(toy_bundle, tmp_path, tensors_out=tmp_path / "two.safetensors"), Log())
    one, two = (SafetensorsFile(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert len(given) == 1
    assert sorted(one.header.entries) == sorted(two.header.entries)
    for name in one.header.entries:
        assert np.array_equal(one.view(name), two.view(name)), name


def test_tensor_of_another_platform_is_no_argument_as_it_is() -> None:
    """Equal layouts on other devices are not enough."""
    distribution = Distribution.of((2,), "float32", (None,), {})
    first, second = Devices(clients.cpu(1)), Accelerator()
    tensor: Tensor = first.put(np.ones(2, np.float32), distribution)
    assert tensor.lies(first, distribution)
    assert not tensor.lies(second, distribution)
