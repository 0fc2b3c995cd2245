"""`ltx-run` as a user meets it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import toy
from click.shell_completion import ShellComplete
from runtime_helpers import PROMPT, Inside

from ltx_cache.store import Store
from ltx_run import __version__, tensors
from ltx_run.bundle import Bundle, decode
from ltx_run.cli import cli
from ltx_run.interpreter import Interpreter
from ltx_run.lookup import MANIFEST
from ltx_run.plan import WriteVideo
from ltx_run.safetensors import SafetensorsFile
from ltx_run.tensors import write

HEAVY = "numpy jaxlib jax av rich msgspec tokenizers ml_dtypes filelock huggingface_hub ltx_run.run"


def ltx_run(*arguments: object, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own; `before` is Python to run first."""
    code = f"import sys\n{before}\nfrom ltx_run.cli import main\nsys.argv[0] = 'ltx-run'\nmain()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_help_imports_nothing_heavy() -> None:
    """Help costs click and nothing else, and shows examples."""
    check = (
        "import atexit\n"
        f"atexit.register(lambda: print([m for m in {HEAVY.split()} if m in sys.modules], file=sys.stderr))"
    )
    done = ltx_run("--help", before=check)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    assert 'ltx-run cpu-tiny --prompt "a red ball rolls to the left" -o ball.mp4' in done.stdout


def test_run_talks_on_standard_error(bundles: dict[int, Path], tmp_path: Path) -> None:
    """Progress and table go to standard error, JSON alone to standard output; quiet prints nothing."""
    out = tmp_path / "out.mp4"
    done = ltx_run(bundles[1], "-p", PROMPT, "-o", out, "--json", "-v")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["videos"][0]["output"] == str(out)
    assert all(
        word in done.stderr for word in ("variant default", "seed 10", "denoise_step", "GFLOP/s", "wrote")
    )
    quiet = ltx_run(bundles[1], "-p", PROMPT, "-o", out, "-q", "--offline")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_tensors_that_cannot_be_saved(
    inside: Inside, bundles: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The video is complete and reported; then comes the error, with the file's name."""
    out, kept = tmp_path / "out.mp4", tmp_path / "out.safetensors"

    def full(tensors: object) -> Iterator[bytes]:
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    monkeypatch.setattr(tensors, "parts", full)
    code, output, errors = inside(bundles[1], "-p", PROMPT, "-o", out, "--tensors-out", kept, "--json")
    (video,) = json.loads(output)["videos"]
    assert (code, video["error"], video["kept"], video["frames"]) == (1, None, [], toy.FRAMES)
    assert video["tensors_error"] == f"[Errno 28] No space left on device: '{kept}'"
    assert f"wrote {out}" in errors
    assert f"{out} is complete, its tensors were not saved: {video['tensors_error']}" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_path_that_is_no_text(bundles: dict[int, Path], tmp_path: Path) -> None:
    """Bytes of a path that are no UTF-8 don't keep the report from being printed."""
    out = tmp_path / os.fsdecode(b"caf\xe9.wav")
    done = ltx_run(bundles[1], "-p", PROMPT, "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["videos"][0]["output"] == str(out)


def test_file_of_prompts(inside: Inside, bundles: dict[int, Path], tmp_path: Path) -> None:
    """Every line gets its video; the talk has a row for each and JSON an object."""
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'{{"prompt": "{PROMPT}", "output": "ball.mp4"}}\n{{"prompt": "rain", "seed": 4}}\n')
    code, output, errors = inside(bundles[1], "--prompts", path, "-o", tmp_path, "--json", "--seed", 2)
    assert code == 0, errors
    videos = json.loads(output)["videos"]
    assert [(Path(video["output"]).name, video["seed"]) for video in videos] == [
        ("ball.mp4", 2),
        ("0002.mp4", 4),
    ]
    assert all(Path(video["output"]).is_file() for video in videos)
    assert "2 prompts" in errors
    assert "wrote 2 of 2 videos" in errors


def test_failed_videos_are_listed(
    inside: Inside, bundles: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When some videos fail, the report says which, and the exit code is 1."""
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "rain", "output": "a.mp4"}\n{"prompt": "rain", "output": "b.mp4"}\n')
    write = Interpreter._write

    def failing(self: Interpreter, step: WriteVideo) -> None:
        if self.job.request.output.name == "a.mp4":
            raise OSError("the disk is full")
        write(self, step)

    monkeypatch.setattr(Interpreter, "_write", failing)
    code, output, errors = inside(bundles[1], "--prompts", path, "-o", tmp_path, "--json")
    assert (code, [video["error"] for video in json.loads(output)["videos"]]) == (
        1,
        ["the disk is full", None],
    )
    assert f"1 of 2 videos failed:\n  {tmp_path / 'a.mp4'}: the disk is full" in errors
    assert (tmp_path / "b.mp4").is_file()


def test_same_seed_same_video(inside: Inside, bundles: dict[int, Path], tmp_path: Path) -> None:
    """Two runs with one seed give equal latents, another seed others; four devices agree with one."""

    def latent(name: str, devices: int, seed: int) -> np.ndarray:
        kept = tmp_path / f"{name}.safetensors"
        options = ("-p", PROMPT, "-o", tmp_path / "out.mp4", "--seed", seed, "--tensors-out", kept, "-q")
        assert inside(bundles[devices], *options) == (0, "", "")
        return SafetensorsFile(kept).view("latent.stage1.video")

    first = latent("a", 1, 7)
    assert np.array_equal(first, latent("b", 1, 7))
    assert np.abs(first - latent("c", 4, 7)).max() <= 1e-6
    assert np.abs(first - latent("d", 1, 8)).max() > 0.1


def test_wrong_input_is_refused_with_exit_code_2(
    inside: Inside, bundles: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mistake has one line that says what, and code 2; nothing is written and no traceback is shown."""
    monkeypatch.setenv("LTX_HOME", str(tmp_path / "home"))
    out, bad = tmp_path / "out.mp4", tmp_path / "bad.safetensors"
    write(bad, {"nothing": np.zeros(1, np.float32)})
    bundle, lines = bundles[1], tmp_path / "lines"
    lines.write_text('{"prompt": "rain"}')
    cases: list[tuple[list[object], str]] = [
        ([bundle, "-p", PROMPT, "-o", tmp_path / "out.avi"], "the suffix must be one of .mp4"),
        ([bundle, "-p", PROMPT, "-o", tmp_path / "no" / "out.mp4"], "there is no directory"),
        ([bundle, "-p", " ", "-o", out], "the prompt is empty"),
        ([bundle, "-o", out], "there is no prompt"),
        ([bundle, "-p", "rain " * 50, "-o", out], "51 tokens, the programs of this bundle take at most 8"),
        ([bundle, "-p", PROMPT, "-o", out, "--variant", "tall"], "no variant tall"),
        (
            [bundle, "-p", PROMPT, "-o", out, "--tensors-in", bad],
            "no tensor nothing",
        ),
        ([bundle, "-p", PROMPT, "-o", out, "--seed", "-1"], "-1 is not in the range"),
        ([bundle, "-p", PROMPT], "Missing option '-o'"),
        ([bundle, "-p", PROMPT, "-o", ""], "-o names no file: it is empty"),
        ([bundle, "--prompts", lines, "-o", ""], "-o names no file: it is empty"),
        ([bundle, "-p", PROMPT, "--prompts", lines, "-o", tmp_path], "--prompt can't be used with --prompts"),
        ([bundle, "--prompts", lines, "-o", tmp_path / "no"], "line 1: cannot write"),
        (["unknown-name", "-p", PROMPT, "-o", out], "no bundle unknown-name"),
    ]
    before = sorted(tmp_path.iterdir())
    for arguments, words in cases:
        code, output, errors = inside(*arguments)
        assert (code, output) == (2, ""), (arguments, errors)
        assert words in errors
        assert "Traceback" not in errors
    assert sorted(tmp_path.iterdir()) == before


def test_variants_are_chosen_and_listed(
    inside: Inside, edit: Callable[..., Path], toy_bundle: Path, tmp_path: Path
) -> None:
    """Among several variants `default` is taken; without one they are listed with their sizes."""
    manifest: Bundle = decode((toy_bundle / MANIFEST).read_bytes())
    only = manifest.variants["default"]
    slow = msgspec.structs.replace(only, fps=12.0)
    options = (toy_bundle, "-p", PROMPT, "-o", tmp_path / "out.mp4")
    edit(variants={"default": only, "slow": slow})
    assert "variant default" in inside(*options)[2]
    edit(variants={"fast": only, "slow": slow})
    code, _, errors = inside(*options)
    assert code == 2
    assert "fast (32x16, 5 frames), slow (32x16, 5 frames)" in errors
    code, _, errors = inside(*options, "--variant", "slow")
    assert (code, "variant slow" in errors) == (0, True)


def test_interrupt_exits_with_130(bundles: dict[int, Path], tmp_path: Path) -> None:
    """Ctrl-C in the middle of a run is one line and code 130, and leaves no file."""
    before = (
        "from ltx_run import interpreter\n"
        "def stop(*_):\n"
        "    raise KeyboardInterrupt\n"
        "    yield\n"
        "interpreter.blend = stop"
    )
    done = ltx_run(bundles[1], "-p", PROMPT, "-o", tmp_path / "out.mp4", "-q", before=before)
    assert done.returncode == 130
    assert done.stderr == f"interrupted: {tmp_path / 'out.mp4'} was not written\n"
    assert list(tmp_path.iterdir()) == []


def test_interrupt_after_the_video_says_that_it_is_there(bundles: dict[int, Path], tmp_path: Path) -> None:
    """Ctrl-C while tensors are saved: the new video is in place, and the talk doesn't deny it."""
    out = tmp_path / "out.mp4"
    out.write_bytes(b"an older video")
    before = "from ltx_run import run\ndef stop(*_):\n    raise KeyboardInterrupt\nrun.Runner.save = stop"
    done = ltx_run(bundles[1], "-p", PROMPT, "-o", out, "-q", before=before)
    assert done.returncode == 130
    assert done.stderr == f"interrupted: {out} is complete, what was to come after it is not\n"
    assert out.stat().st_size > 1000


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ("KeyboardInterrupt", 130, "\nerror: interrupted\n"),
        ("EOFError('it ended')", 1, "internal error: EOFError: it ended"),
        ("BrokenPipeError(32, 'Broken pipe')", 1, ""),
    ],
)
def test_what_click_catches_keeps_its_exit_code(
    bundles: dict[int, Path], tmp_path: Path, error: str, code: int, words: str
) -> None:
    """An interrupt before the run is one too; an end of file that nobody expected is a bug."""
    before = f"from ltx_run import conditioning\ndef parse(_): raise {error}\nconditioning.parse = parse"
    options = ("-p", PROMPT, "-o", tmp_path / "out.mp4", "--image", "x.png")
    done = ltx_run(bundles[1], *options, before=before)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "Aborted" not in done.stderr


def test_what_ends_early_keeps_its_exit_code() -> None:
    """Version and help are success, a wrong option shows how the command is used."""
    done = ltx_run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ltx-run, version {__version__}\n", "")
    assert ltx_run("-h").returncode == 0
    done = ltx_run("toy", "--colour", "red")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: ltx-run [OPTIONS] BUNDLE\n")
    assert "\nError: No such option" in done.stderr
    done = ltx_run(before="import os; os.environ['_LTX_RUN_COMPLETE'] = 'bash_source'")
    assert done.returncode == 0
    assert "_LTX_RUN_COMPLETE=bash_complete" in done.stdout


@pytest.mark.parametrize("verbose", [False, True])
def test_internal_errors_ask_for_a_report(bundles: dict[int, Path], tmp_path: Path, verbose: bool) -> None:
    """A bug is one line with a request to report it; the traceback is shown if asked for."""
    before = "from ltx_run import interpreter\ninterpreter.normal = None"
    options = ["-v"] if verbose else []
    done = ltx_run(bundles[1], "-p", PROMPT, "-o", tmp_path / "out.mp4", *options, before=before)
    assert done.returncode == 1
    assert "internal error: TypeError" in done.stderr
    assert "report" in done.stderr
    assert ("Traceback" in done.stderr) == verbose


def test_offline_refuses_connections() -> None:
    """With --offline every attempt to connect fails, whoever makes it."""
    code = (
        "import socket\n"
        "from ltx_run.offline import refuse_connections\n"
        "refuse_connections()\n"
        "try:\n"
        "    socket.create_connection(('127.0.0.1', 9))\n"
        "except PermissionError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("--offline refuses socket.")


def test_shell_completes_bundle_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell is offered the names in the cache that begin with what is typed."""
    monkeypatch.setenv("LTX_HOME", str(tmp_path))
    store = Store(tmp_path)
    for name in ("cpu-tiny", "cpu-tiny-tp4", "other"):
        store.set_ref(name, store.put_bytes(name.encode()))
    items = ShellComplete(cli, {}, "ltx-run", "_LTX_RUN_COMPLETE").get_completions([], "cpu")
    assert [item.value for item in items] == ["cpu-tiny", "cpu-tiny-tp4"]


def test_toy_prompt_is_what_the_toy_knows() -> None:
    """The prompt of these tests has no unknown words, or the tests above would say little."""
    assert set(PROMPT.split()) <= set(toy.VOCABULARY)
