"""Run every benchmark, one after another.

python bench/run.py                        # all; hours on a small machine
python bench/run.py startup generation     # some
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS: tuple[tuple[str, ...], ...] = (
    ("startup",),
    ("store",),
    ("sharing",),
    ("shard",),
    ("decode_memory",),
    ("generation", "--checkpoint", "tiny"),
    ("generation", "--checkpoint", "middle", "--folder", str(HERE.parent / "demo/middle")),
    ("first_step", "--checkpoint", "middle", "--folder", str(HERE.parent / "demo/middle")),
    ("denoise", str(HERE.parent / "recipes/cpu_tiny_two_stage.yaml")),
    ("growth",),
    ("cross_compile", str(HERE.parent / "recipes/v6e8_two_stage.yaml")),
)
"""Scripts with their arguments; the other files here are parts of them."""


def main() -> None:
    """Run the scripts; stop at the first that fails."""
    names = sorted({name for name, *_ in BENCHMARKS})
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "benchmarks", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all by default"
    )
    wanted = parser.parse_args().benchmarks
    if unknown := set(wanted) - set(names):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    for name, *arguments in BENCHMARKS:
        if not wanted or name in wanted:
            subprocess.run([sys.executable, str(HERE / f"{name}.py"), *arguments], check=True)


if __name__ == "__main__":
    main()
