"""A generation by the official modules in torch: one module after another is loaded, run and let go.

python bench/torch_peer.py CHECKPOINT_FOLDER --dtype float32 --size 384 512 25 --sigmas 1 0.9 0 --output a.mp4

Prints JSON: per module seconds to load, to run, CPU seconds to run; seconds from the start of the process to
the end of the first denoising step and to the written file; the peak of memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/e2e")]

import av  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from harness import since_start  # noqa: E402
from official import load_part  # noqa: E402
from reference import Files, Reference, Size, noise  # noqa: E402
from torch import Tensor  # noqa: E402

STEPS = {
    "encode": ("text_encoder", "embeddings"),
    "denoise": ("transformer",),
    "frames": ("video_decoder",),
    "waveform": ("audio_decoder", "vocoder"),
}
"""Methods of the reference, and the modules that each one uses."""


class Peer:
    """The reference, with modules that are loaded for one method and let go after it."""

    def __init__(self, files: Files, dtype: torch.dtype, *, compiled: bool) -> None:
        self.dtype = dtype
        self.seconds: dict[str, dict[str, float]] = {}
        self.first_step = 0.0
        self._files, self._compiled = files, compiled

    def call(self, method: str, *arguments: Any) -> Any:
        """Load what the method needs, run it, and let the modules go."""
        started = time.perf_counter()
        parts = {name: load_part(name, self._files, self.dtype) for name in STEPS[method]}
        if self._compiled:
            parts = {name: self._compile(name, module) for name, module in parts.items()}
        if "transformer" in parts:
            parts["transformer"].register_forward_hook(self._stepped)
        self.__dict__ |= parts
        loaded, cpu = time.perf_counter(), time.process_time()
        made = getattr(Reference, method)(self, *arguments)
        self.seconds[method] = {
            "load": loaded - started,
            "run": time.perf_counter() - loaded,
            "cpu": time.process_time() - cpu,
        }
        for name in parts:
            del self.__dict__[name]
        del parts
        gc.collect()
        return made

    _modality = Reference._modality

    def _compile(self, name: str, module: Any) -> Any:
        if name in ("transformer", "video_decoder", "vocoder"):
            module.compile()
        return module

    def _stepped(self, *_: object) -> None:
        self.first_step = self.first_step or since_start()


def write(path: Path, frames: Tensor, waveform: Tensor, fps: float) -> None:
    """H.264 and AAC, as `ltx-run` writes them."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=Fraction(fps))
        video.height, video.width, video.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        audio = file.add_stream("aac", rate=48000)
        audio.layout = "stereo"
        for frame in frames.numpy():
            file.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        sound = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(waveform.numpy()), format="fltp", layout="stereo"
        )
        sound.sample_rate = 48000
        file.mux([*video.encode(), *audio.encode(sound), *audio.encode()])


def main() -> None:
    """Generate and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--size", type=int, nargs=3, metavar=("HEIGHT", "WIDTH", "FRAMES"), required=True)
    parser.add_argument("--sigmas", type=float, nargs="+", required=True)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    folder, size = options.folder, Size(*options.size, 24.0)
    files = Files(next(folder.glob("*tiny.safetensors")), folder / "gemma", folder / "none")
    dtype = getattr(torch, options.dtype)
    peer = Peer(files, dtype, compiled=options.compile)
    contexts = peer.call("encode", "a red ball rolls")
    start = tuple(tensor.to(dtype) for tensor in noise(size, two_stage=False).values())
    video, audio = peer.call("denoise", contexts, start, tuple(options.sigmas), size)
    waveform, frames = peer.call("waveform", audio), peer.call("frames", video)
    write(options.output, frames, waveform, size.fps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report = {"seconds": peer.seconds, "first_step": peer.first_step, "whole": since_start(), "peak": peak}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
