"""A bundle with portable programs on a machine that its executables don't fit."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
import torch
from systems import System

import ltxbuild
from ltx_cache.blobref import BlobRef
from ltx_cache.store import Store
from ltx_run.bundle import Bundle, blobs, encode
from ltx_run.lookup import MANIFEST
from ltxbuild.targets.cpu import Cpu

pytestmark = pytest.mark.xdist_group("e2e")
LATENTS = {"latent.stage1.video": (1, 128, 3, 4, 6), "latent.stage1.audio": (1, 8, 18, 16)}


@pytest.fixture(scope="module")
def portable(system: System) -> str:
    """The smallest bundle with portable programs."""
    return system.compile(system.extend("cpu_tiny.yaml", "e2e-portable", "portable: true\n"))


def foreign(system: System, bundle: str, folder: Path) -> str:
    """A copy in a directory, whose executables are for another jaxlib."""
    manifest = msgspec.convert(system.manifest(bundle), Bundle)
    store = Store(Path(system._environment["LTX_HOME"]))
    (folder / "blobs").mkdir(parents=True)
    for blob in blobs(manifest):
        os.link(store.open(BlobRef(blob.sha256, blob.size)), folder / "blobs" / blob.sha256)
    programs = {}
    for name, program in manifest.programs.items():
        other = msgspec.structs.replace(program.fingerprint, runtime="jaxlib 0.0.1")
        programs[name] = msgspec.structs.replace(program, fingerprint=other)
    (folder / MANIFEST).write_bytes(encode(msgspec.structs.replace(manifest, programs=programs)))
    return str(folder)


def test_executables_name_no_folder_of_their_maker(system: System, one_stage: str) -> None:
    """What is published tells nothing of the machine that built it."""
    folder = str(Path(ltxbuild.__file__).parent).encode()
    assert not [name for name, code in system.executables(one_stage).items() if folder in code]


def test_what_is_carried_is_what_was_compiled(
    system: System, one_stage: str, portable: str, tmp_path: Path
) -> None:
    """The executables are those of a bundle without; a decoder compiled anew gives their very frames."""
    ours, theirs = (system.manifest(name)["programs"] for name in (portable, one_stage))
    for name, program in ours.items():
        assert program["executable"] == theirs[name]["executable"]
        assert program["portable"]["flags"] == Cpu().flags(name.partition(".")[0])
        assert theirs[name].get("portable") is None

    given = {
        name: torch.randn(shape, generator=torch.manual_seed(0)).bfloat16() for name, shape in LATENTS.items()
    }
    expected = system.run(portable, given, options=["--no-audio"]).tensors["frames"]
    made = system.run(
        foreign(system, portable, tmp_path / "there"), given, options=["--no-audio", "--allow-compile"]
    )
    (report,) = made.report["programs"]
    assert report["name"].startswith("video_decoder")
    assert report["compile_seconds"] > 0
    assert torch.equal(made.tensors["frames"], expected)
