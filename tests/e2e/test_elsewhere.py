"""Whole bundles for machines that are not here: built, verified, and refused by this one."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from systems import RECIPES, System

import ltxbuild

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("e2e")]


@pytest.mark.parametrize(
    ("platform", "compiler", "extra", "kind", "topology", "devices"),
    [
        ("tpu", "libtpu", "tpu", "TPU v6 lite", "v6e:2x2", 4),
        ("cuda", "jax_cuda13_plugin", "cuda13 (4.4 GB)", "NVIDIA H200", "h200", 1),
    ],
)
def test_a_bundle_for_another_machine(
    system: System, platform: str, compiler: str, extra: str, kind: str, topology: str, devices: int
) -> None:
    """The manifest says what programs are for, `verify` finds it whole, `ltx-run` names what isn't here.

    No program names a folder of its maker.
    """
    if find_spec(compiler) is None:
        pytest.skip(f"ltxbuild[{extra}] is not installed")
    bundle = system.compile(RECIPES / f"{platform}_tiny.yaml")
    programs = system.manifest(bundle)["programs"].values()
    fingerprints = [program["fingerprint"] for program in programs]
    assert {each["platform"] for each in fingerprints} == {platform}
    assert {tuple(each["features"]) for each in fingerprints} == {(kind, topology)}
    assert max(each["devices"] for each in fingerprints) == devices
    assert all(program["memory"]["code"] > 0 for program in programs)
    folder = str(Path(ltxbuild.__file__).parent).encode()
    assert not [name for name, code in system.executables(bundle).items() if folder in code]
    system.call("ltxbuild", "verify", bundle)

    command = [str(Path(sys.executable).with_name("ltx-run")), bundle, "--prompt", "x", "-o", "x.mp4"]
    done = subprocess.run(command, env=system._environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert kind in done.stderr
    assert "this machine has no" in done.stderr
    assert "Traceback" not in done.stderr
