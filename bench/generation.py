"""One generation, ours against the official modules in torch on the same weights: each part and the whole.

python bench/generation.py --checkpoint tiny
python bench/generation.py --checkpoint middle --folder /mnt/disk/middle --rounds 3

Whole processes in turn: `ltx-run` on a built bundle, and `bench/torch_peer.py` in f32, in bf16 and compiled.
A ratio is the fastest torch variant's median over ours: above one, ours is faster (or takes less memory).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import Timing, report
from middle import prepare

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PARTS = {
    "encode": ("text_encoder", "connectors"),
    "denoise": ("denoise",),
    "frames": ("video_decoder",),
    "waveform": ("audio_decoder", "vocoder"),
}
"""Methods of the peer, and the kinds of our programs that do the same."""
TORCH = {
    "torch f32": ("--dtype", "float32"),
    "torch bf16": ("--dtype", "bfloat16"),
    "torch f32 compiled": ("--dtype", "float32", "--compile"),
}
Figures = dict[str, float]


@dataclass(frozen=True)
class Subject:
    """What is generated."""

    folder: Path
    recipe: Path
    bundle: str


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", choices=("tiny", "middle"), default="tiny")
    parser.add_argument("--folder", type=Path, help="where the middle checkpoint is, or is made")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variants", nargs="+", choices=TORCH, default=list(TORCH))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "LTX_HOME": f"{folder}/home", "OMP_NUM_THREADS": str(os.cpu_count())}
        subject = _subject(options.checkpoint, options.folder or Path(folder) / "checkpoint")
        commands = _commands(subject, options.variants, Path(folder), env)
        runs: dict[str, list[Figures]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                runs[name].append(_run(command, env))
                print(name, {k: round(v, 2) for k, v in runs[name][-1].items()}, file=sys.stderr)
    _report(f"generation_{options.checkpoint}", runs)


def _subject(checkpoint: str, folder: Path) -> Subject:
    if checkpoint == "middle":
        return Subject(folder, prepare(folder)["bfloat16"], "middle-bfloat16")
    _quiet([str(BIN / "ltxbuild"), "make-tiny-checkpoint", str(folder)], dict(os.environ))
    return Subject(folder, ROOT / "recipes/cpu_tiny.yaml", "cpu-tiny")


def _commands(
    subject: Subject, variants: list[str], folder: Path, env: Mapping[str, str]
) -> dict[str, list[str]]:
    files = ["--checkpoint", str(next(subject.folder.glob("*tiny.safetensors")))]
    files += ["--text-encoder", str(subject.folder / "gemma")]
    builder = str(BIN / "ltxbuild")
    _quiet([builder, "compile", str(subject.recipe), *files], env)
    variant = json.loads(_quiet([builder, "show", subject.bundle, "--json"], env))["variants"]["default"]
    sigmas = next(s["values"] for s in variant["plan"] if s.get("outputs") == ["sigmas.stage1"])
    size = [str(variant[name]) for name in ("height", "width", "frames")]
    peer = [sys.executable, str(ROOT / "bench/torch_peer.py"), str(subject.folder), "--size", *size]
    peer += ["--output", str(folder / "peer.mp4"), "--sigmas", *map(repr, sigmas)]
    ours = [str(BIN / "ltx-run"), subject.bundle, "--prompt", "a red ball rolls", "--no-prompt-cache"]
    ours += ["--json", "-q", "-o", str(folder / "ours.mp4")]
    return {"ours": ours, **{name: [*peer, *TORCH[name]] for name in variants}}


def _quiet(command: list[str], env: Mapping[str, str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, env=dict(env)).stdout


def _run(command: list[str], env: Mapping[str, str]) -> Figures:
    """Seconds per part, of the whole process, and its peak memory."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, env=dict(env))
        assert process.stderr is not None
        talk = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)} failed:\n{talk}")
        out.seek(0)
        told = json.load(out)
    seconds = time.perf_counter() - started
    cpu = usage.ru_utime + usage.ru_stime
    parts = _ours(told) if "programs" in told else {n: told["seconds"][n]["run"] for n in PARTS}
    return {**parts, "whole": seconds, "whole, CPU": cpu, "peak memory, GB": usage.ru_maxrss / 1e6}


def _ours(told: Mapping[str, Any]) -> Figures:
    return {
        part: sum(p["run_seconds"] for p in told["programs"] if p["name"].split(".")[0] in kinds)
        for part, kinds in PARTS.items()
    }


def _report(name: str, runs: Mapping[str, list[Figures]]) -> None:
    timings, notes = {}, {}
    for subject, figures in runs.items():
        for part in figures[0]:
            values = [figure[part] for figure in figures]
            timings[f"{subject}: {part}"] = Timing(
                statistics.median(values), min(values), max(values), len(values)
            )
    for part in runs["ours"][0]:
        best = min(timings[f"{other}: {part}"].median for other in runs if other != "ours")
        notes[f"best torch / ours: {part}"] = round(best / timings[f"ours: {part}"].median, 2)
    report(name, timings, notes)


if __name__ == "__main__":
    main()
