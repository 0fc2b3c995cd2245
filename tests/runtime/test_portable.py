"""Programs compiled where they run, from the portable form that the bundle carries."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import toy
from runtime_helpers import PROMPT, Inside

from ltx_run.bundle import Bundle, Portable, Program, decode, encode
from ltx_run.lookup import MANIFEST
from ltx_run.safetensors import SafetensorsFile


def foreign(folder: Path, **changes: object) -> Path:
    """Let the bundle's programs be compiled with another jaxlib; `changes` are of every program."""
    manifest: Bundle = decode((folder / MANIFEST).read_bytes())
    programs: dict[str, Program] = {}
    for name, program in manifest.programs.items():
        other = msgspec.structs.replace(program.fingerprint, runtime="jaxlib 0.0.1")
        programs[name] = msgspec.structs.replace(program, fingerprint=other, **changes)
    (folder / MANIFEST).write_bytes(encode(msgspec.structs.replace(manifest, programs=programs)))
    return folder


def tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file."""
    file = SafetensorsFile(path)
    return {name: file.view(name) for name in file.header.entries}


@pytest.mark.parametrize("devices", [1, 4])
def test_compiled_here_gives_the_same(
    bundles: dict[int, Path], tmp_path: Path, inside: Inside, devices: int
) -> None:
    """Bit for bit what the executables give, split over devices too; the second run compiles nothing."""
    made = {}
    folder = Path(shutil.copytree(bundles[devices], tmp_path / "bundle"))
    for run in ("executables", "compiled", "again"):
        if run == "compiled":
            foreign(folder)
        kept = tmp_path / f"{run}.safetensors"
        options = ["--tensors-out", kept, "--json", "-q", "--no-prompt-cache", "--allow-compile"]
        code, output, errors = inside(folder, "-p", PROMPT, "-o", tmp_path / f"{run}.mp4", *options)
        assert code == 0, errors
        made[run] = tensors(kept)
        report = msgspec.json.decode(output)
        took = [program["compile_seconds"] for program in report["programs"]]
        assert all(seconds > 0 for seconds in took) if run == "compiled" else not any(took)
    for name, values in made["executables"].items():
        assert np.array_equal(made["compiled"][name], values), name
        assert np.array_equal(made["again"][name], values), name


def test_not_without_being_asked(toy_bundle: Path, tmp_path: Path, inside: Inside) -> None:
    """The refusal says that it could be compiled, and exits with 3."""
    code, _, errors = inside(foreign(toy_bundle), "-p", PROMPT, "-o", tmp_path / "out.mp4")
    assert code == 3
    assert "compiled for jaxlib 0.0.1" in errors
    assert "--allow-compile" in errors


def test_bundle_without_portable_forms(toy_bundle: Path, tmp_path: Path, inside: Inside) -> None:
    """There is nothing to compile, and no word of it."""
    folder = foreign(toy_bundle, portable=None)
    code, _, errors = inside(folder, "-p", PROMPT, "-o", tmp_path / "out.mp4", "--allow-compile")
    assert code == 3
    assert "compiled for jaxlib 0.0.1" in errors
    assert "--allow-compile" not in errors


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"no zlib", "can't be unpacked"), (zlib.compress(b"no program"), "can't be compiled here")],
)
def test_portable_form_that_is_none(
    toy_bundle: Path, tmp_path: Path, inside: Inside, data: bytes, words: str
) -> None:
    """Bytes that no compiler reads end in a message that names the program."""
    portable = Portable(module=toy.Folder(toy_bundle).blob(data), flags={})
    folder = foreign(toy_bundle, portable=portable)
    code, _, errors = inside(folder, "-p", PROMPT, "-o", tmp_path / "out.mp4", "--allow-compile", "-q")
    assert code == 1
    assert f"program text_encoder{':' if 'unpacked' in words else ''}" in errors
    assert words in errors
    assert "internal error" not in errors


def test_unknown_flag_is_refused_by_name(toy_bundle: Path, tmp_path: Path, inside: Inside) -> None:
    """The flags that the executable was compiled with reach the compiler."""
    manifest: Bundle = decode((toy_bundle / MANIFEST).read_bytes())
    module = manifest.programs["vocoder"].portable
    assert module is not None
    folder = foreign(toy_bundle, portable=msgspec.structs.replace(module, flags={"xla_of_tomorrow": True}))
    code, _, errors = inside(folder, "-p", PROMPT, "-o", tmp_path / "out.mp4", "--allow-compile", "-q")
    assert code == 1
    assert "xla_of_tomorrow" in errors


def test_remembered_prompts_are_of_one_compiler(toy_bundle: Path, tmp_path: Path, inside: Inside) -> None:
    """What a text encoder compiled here makes is remembered apart from what the executable made."""
    arguments = ["-p", PROMPT, "-o", tmp_path / "out.mp4", "--json", "-q", "--allow-compile"]
    found = []
    for _ in range(3):
        code, output, errors = inside(toy_bundle, *arguments)
        assert code == 0, errors
        found.append(msgspec.json.decode(output)["videos"][0]["prompt_cache"])
        foreign(toy_bundle)
    assert found == ["stored", "stored", "hit"]


def test_portable_form_names_no_sources(bundles: dict[int, Path]) -> None:
    """It says nothing of the machine that made it, and is of a version that older runtimes read."""
    from jaxlib.mlir.dialects import stablehlo

    manifest: Bundle = decode((bundles[1] / MANIFEST).read_bytes())
    for program in manifest.programs.values():
        assert program.portable is not None
        module = zlib.decompress((bundles[1] / "blobs" / program.portable.module.sha256).read_bytes())
        assert b"toy" not in module
        assert module.startswith(b"ML\xefR\rStableHLO_v")
        version = module[len(b"ML\xefR\rStableHLO_v") :].split(b"\0")[0].decode()
        assert stablehlo.get_smaller_version(version, stablehlo.get_current_version()) == version


def test_every_copy_of_a_bundle_has_them(edit: Callable[..., Path], toy_bundle: Path) -> None:
    """What copies a bundle takes the portable forms along."""
    from ltx_run.contents import contents, needed

    data = (toy_bundle / MANIFEST).read_bytes()
    manifest: Bundle = decode(data)
    forms = {program.portable.module.sha256 for program in manifest.programs.values() if program.portable}
    assert len(forms) == len(manifest.programs)
    assert forms <= {ref.sha256 for ref in contents(data)}
    assert forms <= {ref.sha256 for ref in needed(manifest, ["default"])}
