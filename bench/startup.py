"""What a user waits for before anything happens: `--help`, and a compile that finds everything.

Aims: `ltx-run --help` under 0.2 s, a no-op `ltxbuild compile` under 0.5 s, a plan of the full two-stage model
under 0.3 s. The peers are the bare
interpreter and the import of jax, which both commands do without.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import alternate, report

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
FULL = ROOT / "recipes/v6e8_two_stage.yaml"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        env = {"LTX_HOME": f"{folder}/home"}
        checkpoint = Path(folder) / "checkpoint"
        builder = str(BIN / "ltxbuild")
        subprocess.run([builder, "make-tiny-checkpoint", str(checkpoint)], check=True, capture_output=True)
        compile_again = [
            builder,
            "compile",
            str(ROOT / "recipes/cpu_tiny.yaml"),
            "--checkpoint",
            str(next(checkpoint.glob("*tiny.safetensors"))),
            "--text-encoder",
            str(checkpoint / "gemma"),
        ]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "python -c 'import jax'": [sys.executable, "-c", "import jax"],
            "ltx-run --help": [str(BIN / "ltx-run"), "--help"],
            "ltxbuild --help": [builder, "--help"],
            "ltxbuild compile (no-op)": compile_again,
            "ltxbuild plan (22 B)": [builder, "plan", str(FULL), "--programs-only", "--json"],
        }
        timings = alternate(commands, runs, env)
    bare = timings["python -c pass"].median
    notes = {f"{name}, over python": f"{timing.median - bare:.3f} s" for name, timing in timings.items()}
    report("startup", timings, notes)


if __name__ == "__main__":
    main()
