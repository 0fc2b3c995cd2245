"""What a machine can execute, and what an executable needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from runtime_helpers import job

from ltx_run import fingerprint, isa
from ltx_run.bundle import Bundle, decode
from ltx_run.errors import DeviceUnavailable, ProgramMismatch
from ltx_run.lookup import MANIFEST
from ltx_run.platforms import obstacles

XEON = "processor\t: 0\nflags\t\t: fpu sse sse2 pni ssse3 sse4_1 sse4_2 abm avx2 constant_tsc\n"
OLDER = "processor\t: 1\nflags\t\t: fpu sse sse2 pni ssse3 sse4_1 sse4_2\n"
GRAVITON = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes crc32 atomics asimddp bf16 i8mm cpuid\n"
APPLE = "hw.optional.arm.FEAT_DotProd: 1\nhw.optional.AdvSIMD: 1\nhw.optional.arm.FEAT_SME2: 0\n"


def test_linux_flags_become_llvm_features() -> None:
    """Flags that no code generator uses are left out, the others get LLVM's names."""
    assert fingerprint.parse_cpuinfo(XEON) == {
        "sse", "sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "lzcnt", "avx2",
    }  # fmt: skip
    assert fingerprint.parse_cpuinfo(GRAVITON) == {
        "fp-armv8", "neon", "aes", "crc", "lse", "dotprod", "bf16", "i8mm",
    }  # fmt: skip
    assert fingerprint.parse_sysctl(APPLE) == {"dotprod", "neon"}


def test_unequal_processors_count_as_the_weakest() -> None:
    """A machine has the features that all of its processors have."""
    assert "avx2" not in fingerprint.parse_cpuinfo(XEON + "\n" + OLDER)


def test_this_machine_has_a_level() -> None:
    """Tests run on a machine that can run its own portable code."""
    level = {"x86_64": "sse4", "aarch64": "neon"}[fingerprint.architecture()]
    assert set(fingerprint.isa_features(level)) <= set(fingerprint.host_features())


def test_levels_contain_each_other() -> None:
    """Each x86 level has all features of the one below, and only known ones."""
    features = {name: set(names) for name, (_, names) in isa.LEVELS.items()}
    assert features["sse4"] < features["avx2"] < features["avx512"]
    assert set().union(*features.values()) <= isa.KNOWN


def test_level_of_another_architecture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine can't compile for a level of another architecture."""
    monkeypatch.setattr(fingerprint.platform, "machine", lambda: "arm64")
    with pytest.raises(DeviceUnavailable, match="code for x86_64, and this machine compiles for aarch64"):
        fingerprint.isa_features("avx2")


def test_executable_tells_its_features(bundles: dict[int, Path]) -> None:
    """Code compiled for this machine uses what this machine has; other bytes tell nothing."""
    manifest: Bundle = decode((bundles[1] / MANIFEST).read_bytes())
    code = (bundles[1] / "blobs" / manifest.programs["decoder"].executable.sha256).read_bytes()
    found = fingerprint.code_features(code)
    assert set(found) == set(fingerprint.host_features())
    with pytest.raises(ValueError, match="no feature string"):
        fingerprint.code_features(b"+avx2,-avx512f")


def test_own_code_has_no_obstacles() -> None:
    """What is compiled here runs here."""
    assert obstacles(fingerprint.native(4)) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": ("amx-tile", "evex-9000")}, ["evex-9000", "this machine has"]),
        ({"runtime": "jaxlib 0.0.1"}, ["jaxlib 0.0.1", fingerprint.runtime_version()]),
        ({"platform": "abacus"}, ["abacus", "cpu, cuda, "]),
    ],
)
def test_foreign_programs_are_refused(
    edit: Callable[..., Path], toy_bundle: Path, tmp_path: Path, change: dict[str, object], words: list[str]
) -> None:
    """A program for another machine stops the run early, with both values and the way out."""
    manifest: Bundle = decode((toy_bundle / MANIFEST).read_bytes())
    program = manifest.programs["vocoder"]
    foreign = msgspec.structs.replace(program.fingerprint, **change)
    edit(programs=manifest.programs | {"vocoder": msgspec.structs.replace(program, fingerprint=foreign)})
    with pytest.raises(ProgramMismatch) as caught:
        job(toy_bundle, tmp_path)
    assert all(word in caught.value.message for word in ("vocoder", *words))
    assert "ltxbuild compile" in (caught.value.hint or "")
    assert caught.value.exit_code == 3
