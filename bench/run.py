"""Run every benchmark, one after another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOT_BENCHMARKS = {"run.py", "harness.py"}


def main() -> None:
    """Run the scripts beside this one; stop at the first that fails."""
    for script in sorted(HERE.glob("*.py")):
        if script.name not in NOT_BENCHMARKS:
            subprocess.run([sys.executable, str(script)], check=True)


if __name__ == "__main__":
    main()
