"""A stand-in for neuronx-cc: takes its command line, and makes a NEFF that holds the graph.

`install` puts it on a PATH under its name, with a behaviour; what it is called with is written down.
"""

from __future__ import annotations

import itertools
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

VERSION = "2.24.5133.0+58f8de22"
MODES = ("good", "refuses", "killed", "memory", "hangs", "wrong_lnc", "nothing", "broken", "torn", "stub")


def neff(payload: bytes, lnc: int = 2) -> bytes:
    """A NEFF around a payload."""
    header = struct.pack("<5Q", 2, 1024, len(payload), 2, 0) + b"2.0.0%stand-in".ljust(128, b"\0")
    return (header.ljust(552, b"\0") + struct.pack("<I", lnc)).ljust(1024, b"\0") + payload


def install(folder: Path, mode: str = "good", version: str = VERSION) -> Path:
    """Make a neuronx-cc in a new folder; its calls are recorded in `calls` there."""
    assert mode in MODES
    folder.mkdir(parents=True)
    program = folder / "neuronx-cc"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"from neuronx_cc import main\nmain({str(folder)!r}, {mode!r}, {version!r})\n"
    )
    program.chmod(0o755)
    return folder


def calls(folder: Path) -> list[dict[str, Any]]:
    """Arguments, folder, environment and processes of each compile."""
    file = folder / "calls"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def main(folder: str, mode: str, version: str) -> None:
    """Act as the compiler."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        print(
            f"NeuronX Compiler version {'1.0.post1' if mode == 'stub' else version}\n\nPython version 3.11.9"
        )
        return
    record: dict[str, Any] = {
        "arguments": arguments,
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
    }
    child = [subprocess.Popen(["sleep", "600"]).pid] if mode == "hangs" else []
    record["processes"] = [os.getpid(), *child]
    with (Path(folder) / "calls").open("a") as file:
        file.write(json.dumps(record) + "\n")
    option = dict(itertools.pairwise(arguments))
    Path(option["--logfile"]).write_text("compiler log\n")
    (Path.cwd() / "scratch").write_text("left behind")
    output, graph = Path(option["--output"]), Path(arguments[1]).read_bytes()
    match mode:
        case "refuses":
            print("[NCC_EVRF001] Operator frobnicate is not supported")
            sys.exit(70)
        case "memory":
            print("[F137] neuronx-cc was forcibly killed")
            sys.exit(70)
        case "killed":
            os.kill(os.getpid(), 9)
        case "hangs":
            print("at it", flush=True)
            time.sleep(600)
        case "wrong_lnc":
            output.write_bytes(neff(graph, lnc=1))
        case "broken":
            output.write_bytes(b"no NEFF" * 1000)
        case "torn":
            output.write_bytes(neff(graph)[:-3])
        case "good":
            output.write_bytes(neff(graph, int(option["--lnc"])))
