"""One generation, ours against the official modules in torch on the same weights: each part and the whole.

python bench/generation.py --checkpoint tiny
python bench/generation.py --checkpoint middle --folder /mnt/disk/middle --rounds 3 --kept figures.jsonl

Whole processes in turn: `ltx-run` on bundles in bf16 and f32, `bench/torch_peer.py` in both, eager and
compiled, and `bench/jit_peer.py`, which compiles where we load and stops after the first denoising step. A
ratio is that of the fastest torch variant's median to ours in bf16: above one, ours is faster, or takes less
memory. Every process finds its files in the page cache. The loop over steps is driven by the host, so that
the end of the first one can be told.

Rounds on the middle checkpoint take many minutes: `--kept` is a file that figures are added to, and that
earlier ones are taken from, so that they can be measured a few at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import middle
from harness import Timing, read, report, told

ROOT = Path(__file__).parents[1]
BENCH = Path(__file__).parent
BIN = Path(sys.executable).parent
PROMPT = "a red ball rolls"
PARTS = {
    "encode": ("text_encoder", "connectors"),
    "denoise": ("denoise_step", "unpatchify"),
    "frames": ("video_decoder",),
    "waveform": ("audio_decoder", "vocoder"),
}
"""Methods of the peer, and the kinds of our programs that do the same."""
OURS = {"ours bf16": "bfloat16", "ours f32": "float32"}
TORCH = {
    "torch bf16": ("--dtype", "bfloat16"),
    "torch f32": ("--dtype", "float32"),
    "torch bf16 compiled": ("--dtype", "bfloat16", "--compile"),
    "torch f32 compiled": ("--dtype", "float32", "--compile"),
}
JIT = "jax.jit from source"
SUBJECTS = (*OURS, *TORCH, JIT)
MAIN = "ours bf16"
FIRST_STEP = "to the first step"
Figures = dict[str, float]


@dataclass(frozen=True)
class Subject:
    """What is generated.

    Attributes:
        folder: Checkpoint.
        recipes: By precision.
        scratch: Where videos go.
        env: Of every process.
    """

    folder: Path
    recipes: Mapping[str, Path]
    scratch: Path
    env: Mapping[str, str]

    @property
    def files(self) -> list[str]:
        """Options that name the checkpoint."""
        model = next(self.folder.glob("*tiny.safetensors"))
        return ["--checkpoint", str(model), "--text-encoder", str(self.folder / "gemma")]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_options(parser)
    parser.add_argument("--subjects", nargs="*", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--kept", type=Path, help="file of figures, taken up and added to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        subject = prepared(options.checkpoint, options.folder, options.home, Path(folder))
        runs = _kept(options.kept)
        named = dict.fromkeys((MAIN, *options.subjects))
        bundles = {name: build(subject, OURS[name]) for name in named if name in OURS}
        commands = _commands(subject, options.subjects, bundles)
        files = {name: _files(subject, bundles.get(name)) for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                read(files[name])
                figures = _run(command, subject.env)
                runs.setdefault(name, []).append(figures)
                _keep(options.kept, name, figures)
                print(name, {k: round(v, 2) for k, v in figures.items()}, file=sys.stderr, flush=True)
        _report(f"generation_{options.checkpoint}", runs)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that say what is generated, and how often."""
    parser.add_argument("--checkpoint", choices=("tiny", "middle"), default="tiny")
    parser.add_argument("--folder", type=Path, help="where the checkpoint is, or is made")
    parser.add_argument("--home", type=Path, help="cache to build in (default: a temporary one)")
    parser.add_argument("--rounds", type=int, default=3)


def prepared(checkpoint: str, folder: Path | None, home: Path | None, scratch: Path) -> Subject:
    """A checkpoint and recipes; what is not given is made in the scratch folder."""
    env = {**os.environ, "LTX_HOME": str(home or scratch / "home"), "OMP_NUM_THREADS": str(os.cpu_count())}
    where = folder or scratch / "checkpoint"
    return Subject(where, _recipes(checkpoint, where, scratch), scratch, env)


def _recipes(checkpoint: str, folder: Path, scratch: Path) -> Mapping[str, Path]:
    if checkpoint == "middle":
        return middle.prepare(folder)
    if not (folder / "gemma").exists():
        told([str(BIN / "ltxbuild"), "make-tiny-checkpoint", str(folder)], dict(os.environ))
    recipes = {}
    for precision in OURS.values():
        recipes[precision] = scratch / f"{precision}.yaml"
        lines = (f"extends: {ROOT}/recipes/cpu_tiny.yaml", f"name: tiny-{precision}")
        text = "\n".join((*lines, f"precision: {precision}", "loop: stepwise", ""))
        recipes[precision].write_text(text, encoding="utf-8")
    return recipes


def _commands(subject: Subject, names: Sequence[str], bundles: Mapping[str, str]) -> dict[str, list[str]]:
    video = str(subject.scratch / "video.mp4")
    variant = manifest(subject, bundles[MAIN])["variants"]["default"]
    sigmas = next(step["values"] for step in variant["plan"] if step["out"] == ["sigmas.stage1"])
    size = [str(variant[name]) for name in ("height", "width", "frames")]
    torch = [sys.executable, str(BENCH / "torch_peer.py"), str(subject.folder), "--size", *size]
    torch += ["--output", video, "--sigmas", *map(repr, sigmas)]
    jit = [sys.executable, str(BENCH / "jit_peer.py"), str(subject.recipes["bfloat16"]), *subject.files]
    commands = {name: [*torch, *TORCH[name]] for name in TORCH} | {JIT: jit}
    for name, bundle in bundles.items():
        ours = [str(BIN / "ltx-run"), bundle, "--prompt", PROMPT]
        commands[name] = [*ours, "--no-prompt-cache", "--json", "-q", "-o", video]
    return {name: commands[name] for name in names}


def build(subject: Subject, precision: str) -> str:
    """Build one of the bundles, unless it is there, and return its name."""
    command = [str(BIN / "ltxbuild"), "compile", str(subject.recipes[precision]), *subject.files]
    told(command, subject.env)
    text = subject.recipes[precision].read_text(encoding="utf-8")
    return next(line.split()[1] for line in text.splitlines() if line.startswith("name:"))


def manifest(subject: Subject, bundle: str) -> Any:
    """The manifest of one of the bundles."""
    return json.loads(told([str(BIN / "ltxbuild"), "show", bundle, "--json"], subject.env))


def weight_files(subject: Subject, bundle: str, *sets: str) -> list[Path]:
    """Files of a bundle's weight sets, or of those named."""
    records = manifest(subject, bundle)["weights"]
    blobs = [
        blob
        for name, record in records.items()
        if not sets or name in sets
        for blob in (*record["ranks"], record["shared"])
        if blob
    ]
    home = Path(subject.env["LTX_HOME"])
    return [next(home.glob(f"blobs/*/{blob['sha256']}")) for blob in blobs]


def _files(subject: Subject, bundle: str | None) -> list[Path]:
    """What a process reads: the weights of one of our bundles, or the checkpoint."""
    if bundle:
        return weight_files(subject, bundle)
    return [path for path in subject.folder.rglob("*") if path.is_file()]


def _run(command: Sequence[str], env: Mapping[str, str]) -> Figures:
    """Seconds per part, to the first step and of the whole process, and its peak memory."""
    spawned, started = time.time(), time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as talk:
        process = subprocess.Popen(command, stdout=out, stderr=talk, env=dict(env))
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        out.seek(0)
        talk.seek(0)
        if status:
            raise SystemExit(f"{' '.join(command)} failed:\n{talk.read()}")
        told = json.load(out)
    peak = usage.ru_maxrss * 1024
    if "programs" not in told:
        parts = {name: part["run"] for name, part in told["seconds"].items()}
        first = told["first_step"]
    else:
        parts, programs = _ours(told), told["programs"]
        first = next(p["first_done"] for p in programs if p["name"].startswith("denoise_step")) - spawned
        # The runtime resets the system's figure for each program.
        peak = max(peak, *(p["peak_bytes"] for p in programs))
    whole = {"whole": seconds, "whole, CPU": usage.ru_utime + usage.ru_stime}
    return {**parts, FIRST_STEP: first, **(whole if parts else {}), "peak memory, GB": peak / 1e9}


def _ours(told: Mapping[str, Any]) -> Figures:
    return {
        part: sum(p["run_seconds"] for p in told["programs"] if p["name"].split(".")[0] in kinds)
        for part, kinds in PARTS.items()
    }


def _kept(path: Path | None) -> dict[str, list[Figures]]:
    runs: dict[str, list[Figures]] = {}
    if path and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            name, figures = json.loads(line)
            runs.setdefault(name, []).append(figures)
    return runs


def _keep(path: Path | None, name: str, figures: Figures) -> None:
    if path:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, figures]) + "\n")


def _report(name: str, runs: Mapping[str, list[Figures]]) -> None:
    timings: dict[str, Timing] = {}
    notes: dict[str, float] = {}
    for subject in (subject for subject in SUBJECTS if subject in runs):
        for part in runs[subject][0]:
            timings[f"{subject}: {part}"] = Timing.of([figures[part] for figures in runs[subject]])
    for part in runs.get(MAIN, [{}])[0]:
        ours = timings[f"{MAIN}: {part}"].median
        peers = [timings[f"{peer}: {part}"].median for peer in TORCH if peer in runs]
        if peers:
            notes[f"best torch / {MAIN}: {part}"] = round(min(peers) / ours, 2)
        if f"{JIT}: {part}" in timings:
            notes[f"{JIT} / {MAIN}: {part}"] = round(timings[f"{JIT}: {part}"].median / ours, 2)
    report(name, timings, notes)


if __name__ == "__main__":
    main()
