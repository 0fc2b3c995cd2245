"""The builder's command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ltx_cache.store import Store
from ltxbuild.compiler.workers import WorkerPool
from ltxbuild.environment import scrubbed
from ltxbuild.errors import BuildFailed
from ltxbuild.targets import target

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "recipes/cpu_tiny.yaml")
HEAVY = {"jax", "jaxlib", "torch", "transformers", "huggingface_hub", "numpy", "pydantic", "rich"}


def ltxbuild(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with its own cache."""
    return subprocess.run(
        [sys.executable, "-c", "from ltxbuild.cli.main import main; main()", *arguments],
        env={**os.environ, "LTX_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_imports_nothing_heavy() -> None:
    """`--help` and the list of commands need click alone."""
    code = (
        "import sys, json; sys.argv = ['ltxbuild', '--help']\n"
        "from ltxbuild.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(json.dumps([name for name in sys.modules if '.' not in name]))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert "make-tiny-checkpoint" in done.stdout
    assert not HEAVY & set(json.loads(done.stdout.splitlines()[-1]))


def without(module: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command where a module is not installed."""
    code = f"import sys; sys.modules[{module!r}] = None; from ltxbuild.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "LTX_HOME": str(folder / "home")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("pydantic", ("compile", TINY)),
        ("pydantic_core", ("export", TINY, "--neuron", "graphs")),
        ("yaml", ("plan", TINY)),
        ("pydantic", ("explain", "--help")),
        ("pydantic", ("recipe-schema",)),
        ("jax", ("inspect", TINY, "vocoder")),
        ("jax", ("make-tiny-checkpoint", "made")),
    ],
)
def test_commands_name_what_they_need_of_the_extra_build(
    module: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """Where only bundles are run, it is not installed."""
    done = without(module, *arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"this command needs {module}, which is not installed" in done.stderr
    assert "pip install 'ltxbuild[build]'" in done.stderr


def test_a_module_that_no_extra_has_is_a_bug(tmp_path: Path) -> None:
    """No advice hides that this project's own files are missing."""
    done = without("ltxbuild.cli.bundles", "list", folder=tmp_path)
    assert (done.returncode, "internal error: ModuleNotFoundError" in done.stderr) == (1, True)


def test_examples_in_help_stand_on_lines_of_their_own() -> None:
    """Click keeps the line breaks of the examples."""
    code = (
        "import sys; sys.argv = ['ltxbuild', 'compile', '--help']; from ltxbuild.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert "Examples:\n    ltxbuild compile recipes/cpu_tiny.yaml\n    ltxbuild compile" in done.stdout


def test_an_empty_cache_lists_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    """The hint goes to standard error, data to standard output."""
    done = ltxbuild(tmp_path, "list", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {})
    assert "ltxbuild compile" in ltxbuild(tmp_path, "list").stderr


def test_plan_as_json_needs_no_checkpoint_with_programs_only(tmp_path: Path) -> None:
    """The full-size model is planned from the shipped configuration."""
    recipe = str(ROOT / "recipes/v6e8_two_stage.yaml")
    done = ltxbuild(tmp_path, "plan", recipe, "--programs-only", "--json")
    plan = json.loads(done.stdout)
    assert done.returncode == 0
    assert not plan["complete"]
    stage2 = plan["programs"]["denoise_from.16x32x48a126f24s3"]
    assert stage2["state"] == "miss"
    assert stage2["attention"] == "pallas"
    assert stage2["devices"] == 8
    assert plan["weights"]["transformer"]["state"] == "no checkpoint"
    assert 5.0e9 < plan["weights"]["transformer"]["bytes_per_device"] < 6.5e9


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("compile", "nowhere.yaml"), 2, "cannot read recipe nowhere.yaml"),
        (
            ("compile", TINY, "--programs-only", "--only", "vocodr"),
            2,
            "no such program (there are: text_encoder",
        ),
        (("compile", TINY, "--checkpoint", "nowhere.safetensors"), 2, "nowhere.safetensors does not exist"),
        (("show", "nothing"), 2, "nothing"),
        (("compile",), 2, "Missing argument"),
        (("compile", TINY, "--jobs", "0"), 2, "not in the range"),
    ],
)
def test_errors_are_one_message_and_an_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """No traceback, nothing on standard output."""
    done = ltxbuild(tmp_path, *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_interrupt_exits_with_130() -> None:
    """Ctrl-C in any command, as from `ltx-run`."""
    code = (
        "from ltxbuild.cli import bundles, main\n"
        "def stop(*_): raise KeyboardInterrupt\n"
        "bundles.Store = stop\n"
        "main.main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "list"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "\nerror: interrupted\n"


def test_a_reader_that_leaves_is_not_talked_about() -> None:
    """A pipe that nobody reads any more ends the command without a word."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "from ltxbuild.cli.main import main; main()", "recipe-schema"]
    with os.fdopen(writer, "wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A recipe with a compiler flag that doesn't exist."""
    path = tmp_path / "broken.yaml"
    path.write_text(
        f"extends: {TINY}\nname: broken\n"
        "programs: {audio_decoder: {flags: {xla_no_such_flag: true}}}\n",
        encoding="utf-8",
    )
    return path


def test_a_failed_compile_is_shown_and_never_cached(tmp_path: Path, broken: Path) -> None:
    """The compiler's words and the log are shown; a second try compiles again; other flags succeed."""
    home = tmp_path / "home"
    for _ in range(2):
        done = ltxbuild(home, "compile", str(broken), "--programs-only", "--only", "audio_decoder")
        assert done.returncode == 1
        assert "audio_decoder.18 did not compile" in done.stderr
        assert "xla_no_such_flag" in done.stderr
        assert (home / "logs/audio_decoder.18.log").stat().st_size > 0
        assert not list(home.glob("entries/program/*"))
    done = ltxbuild(home, "compile", TINY, "--programs-only", "--only", "audio_decoder")
    assert done.returncode == 0, done.stderr
    assert len(list(home.glob("entries/program/*"))) == 1
    assert "not published" in done.stderr


def test_a_killed_compiler_fails_its_job_alone(tmp_path: Path) -> None:
    """A process killed from outside, as for lack of memory, is reported with its signal; the pool goes on."""
    with WorkerPool(1, Store(tmp_path / "home")) as pool:

        def kill() -> None:
            while not pool._started:
                time.sleep(0.01)
            pool._started[0].process.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(BuildFailed, match="killed by signal 9"):
            pool.compile("victim", {}, {})
        killer.join()
        with pytest.raises(BuildFailed, match="KeyError"):
            pool.compile("next", {}, {})


def test_the_compile_environment_is_scrubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that reach code generation are dropped; the recipe's own are set."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    assert not {"XLA_FLAGS", "JAX_ENABLE_X64"} & set(scrubbed())
    env = target("cpu").environment({"isa": "avx2"}, 4)
    assert env["XLA_FLAGS"] == "--xla_force_host_platform_device_count=4 --xla_cpu_max_isa=AVX2"
