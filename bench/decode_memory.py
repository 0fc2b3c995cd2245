"""Peak memory of a run's tiled decode, by length of the video and kind of output.

    python bench/decode_memory.py --frames 9 33 121 241 --outputs mp4 webm gif frames

The bundle is made here: noise as latent and as sound, and a decoder that does next to nothing, cut into tiles
as real ones are. So what is measured is the runtime: blending, conversion, encoding. Each run is a process of
its own, and its peak is the system's figure for it (`ru_maxrss`). Below the table stands what one temporal
tile takes: up to its length memory grows with the video, beyond it must not.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Timing, report

from ltx_run import bundle, plan
from ltx_run.fingerprint import native
from ltxbuild.plan.tiling import tile_shapes, tiles

CHANNELS, FPS, RATE = 8, 24.0, 48000
STRIDE_T, STRIDE = 8, 32


class Folder:
    """A bundle directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs").mkdir(parents=True)

    def blob(self, data: bytes) -> bundle.Blob:
        """Add bytes under their digest."""
        digest = hashlib.sha256(data).hexdigest()
        (self.root / "blobs" / digest).write_bytes(data)
        return bundle.Blob(sha256=digest, size=len(data))


def decoder(folder: Folder, shape: tuple[int, int, int]) -> bundle.Program:
    """A program that shows three channels of a latent tile, enlarged."""
    import jax
    import jax.numpy as jnp

    t, h, w = shape
    frames = STRIDE_T * (t - 1) + 1

    def decode(latent: Any) -> Any:
        colour = jax.nn.sigmoid(latent[0, :3].transpose(1, 2, 3, 0)).astype(jnp.bfloat16)
        when = (jnp.arange(frames) + STRIDE_T - 1) // STRIDE_T
        rows, columns = (jnp.arange(cells * STRIDE) // STRIDE for cells in (h, w))
        return colour[when][None, :, rows][..., columns, :]

    return compiled(folder, decode, shape)


def vocoder(folder: Folder, shape: tuple[int, int, int], samples: int) -> bundle.Program:
    """A program that makes a tone of a whole latent."""
    import jax.numpy as jnp

    def tone(latent: Any) -> Any:
        wave = latent.mean() + jnp.sin(jnp.arange(samples) / 17)
        return jnp.stack([wave, -wave]) / 4

    return compiled(folder, tone, shape)


def compiled(folder: Folder, function: Callable[[Any], Any], shape: tuple[int, int, int]) -> bundle.Program:
    """A function of a latent as a program."""
    import jax
    import jax.numpy as jnp

    latent = jax.ShapeDtypeStruct((1, CHANNELS, *shape), jnp.float32)
    lowered = jax.jit(function).lower(latent)
    made = lowered.out_info
    return bundle.Program(
        executable=folder.blob(lowered.compile().runtime_executable().serialize()),
        fingerprint=native(1),
        inputs=(bundle.TensorInput(name="latent", shape=latent.shape, dtype="float32", spec=(None,) * 5),),
        outputs=(
            bundle.TensorSpec(
                name="made", shape=made.shape, dtype=made.dtype.name, spec=(None,) * len(made.shape)
            ),
        ),
        mesh=(),
        weights=None,
        key="",
        memory=bundle.Memory(arguments=0, outputs=0, temp=0, code=0),
        flops=0.0,
    )


def latent_size(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Latent cells in time, rows, columns."""
    return (frames - 1) // STRIDE_T + 1, height // STRIDE, width // STRIDE


def variant(frames: int, height: int, width: int) -> bundle.Variant:
    """Noise, decoded in tiles and written."""
    size = latent_size(frames, height, width)
    return bundle.Variant(
        height=height,
        width=width,
        frames=frames,
        fps=FPS,
        plan=(
            plan.Noise(outputs=("latent",), shape=(1, CHANNELS, *size), dtype="float32", draw=0),
            plan.Run(program=f"vocoder.{frames}", inputs=("latent",), outputs=("sound",)),
            plan.DecodeTiles(
                inputs=("latent",), outputs=("frames",), frames=frames, height=height, width=width,
                tiles=tiles(*size),
            ),
            plan.WriteVideo(inputs=("frames", "sound"), fps=FPS, sample_rate=RATE),
        ),
    )  # fmt: skip


def write_bundle(root: Path, lengths: list[int], height: int, width: int) -> None:
    """A bundle with a variant for each length."""
    folder = Folder(root)
    variants = {f"{frames}": variant(frames, height, width) for frames in lengths}
    shapes: dict[str, tuple[int, int, int]] = {}
    programs = {}
    for frames in lengths:
        size = latent_size(frames, height, width)
        shapes |= tile_shapes(tiles(*size))
        programs[f"vocoder.{frames}"] = vocoder(folder, size, round(frames / FPS * RATE))
    programs |= {name: decoder(folder, shape) for name, shape in shapes.items()}
    made = bundle.Bundle(
        name="decode-memory",
        recipe={},
        variants=variants,
        programs=programs,
        weights={},
        tokenizer=folder.blob(b"{}"),
        provenance={},
    )
    (root / "bundle.json").write_bytes(bundle.encode(made))


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds and peak megabytes of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return seconds, usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[9, 33, 121, 241])
    parser.add_argument("--outputs", nargs="+", default=["mp4"], choices=["mp4", "webm", "gif", "frames"])
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=768)
    options = parser.parse_args()
    command = [str(Path(sys.executable).with_name("ltx-run"))]
    timings: dict[str, Timing] = {}
    peaks: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "bundle"
        # The system counts what a process's parent has as the process's own, and jax is large.
        arguments = (root, options.frames, options.height, options.width)
        builder = multiprocessing.get_context("spawn").Process(target=write_bundle, args=arguments)
        builder.start()
        builder.join()
        print(f"{options.width}x{options.height}", *(f"{name:>18}" for name in options.outputs))
        for frames in options.frames:
            cells = []
            for name in options.outputs:
                out = f"{folder}/out/" if name == "frames" else f"{folder}/out.{name}"
                seconds, peak = measured([*command, str(root), "-o", out, "--variant", str(frames), "-q"])
                cells.append(f"{peak:8.0f} MB {seconds:5.1f} s")
                timings[f"{frames} frames, {name}"] = Timing.of([seconds])
                peaks[f"{frames} frames, {name}: peak, MB"] = round(peak)
            print(f"{frames:5} f", *(f"{cell:>18}" for cell in cells), flush=True)
    longest = max(tile.out_stop[0] - tile.out_start[0] for tile in tiles(99, 1, 1))
    pixels = longest * options.height * options.width * 3
    print(f"a tile of {longest} frames: {pixels * 4 / 1e6:.0f} MB in f32, {pixels * 2 / 1e6:.0f} MB in bf16")
    report("decode_memory", timings, peaks)


if __name__ == "__main__":
    main()
