"""A toy model in the form of a bundle: real executables, real weight files, a hand-written plan.

Run as a program to write the bundle, since the number of host devices is fixed when jax starts:
python toy.py FOLDER DEVICES [whole]
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ltx_run import bundle, plan
from ltx_run.fingerprint import native

VOCABULARY = ["[unk]", "[bos]", "a", "red", "ball", "rolls", "to", "the", "left", "rain"]
LENGTH, WIDTH, LAYERS = 8, 16, 2
GRID = (3, 2, 4)
TOKENS, AUDIO = math.prod(GRID), 6
SAMPLES, RATE, FPS = 9600, 48000, 24.0
HEIGHT, PIXELS, FRAMES = 16, 32, 5
SIGMAS = (1.0, 0.75, 0.25, 0.0)


def weights() -> dict[str, np.ndarray]:
    """All weights of the toy; `table` is bfloat16, `mix` stacked and split by rank."""
    random = np.random.default_rng(0)
    return {
        "table": random.standard_normal((len(VOCABULARY), WIDTH)).astype(ml_dtypes.bfloat16),
        "mix": random.standard_normal((LAYERS, 64, WIDTH)).astype(np.float32) / 8,
        "back": random.standard_normal((WIDTH, 64)).astype(np.float32) / 8,
        "rgb": random.standard_normal((WIDTH, 3)).astype(np.float32),
    }


def text_encoder(xp: Any, table: Any, tokens: Any, mask: Any) -> tuple[Any, ...]:
    """Tokens to the contexts of both modalities, bf16 `[1, LENGTH, WIDTH]`."""
    context = table[tokens] * mask[..., None].astype(table.dtype)
    return context, context + context


def denoise_step(
    xp: Any, mix: Any, back: Any, video: Any, audio: Any, now: Any, then: Any, context: Any, sound: Any
) -> tuple[Any, ...]:
    """One step on both states."""

    def move(x: Any, c: Any) -> Any:
        shift = c.astype(xp.float32).mean(axis=1, keepdims=True)
        for layer in mix:
            x = x + (then - now)[0] * (xp.tanh((x + shift) @ layer.T) @ back.T)
        return x

    return move(video, context), move(audio, sound)


def unpatchify(xp: Any, video: Any, audio: Any) -> tuple[Any, ...]:
    """Tokens to latents."""
    return video.reshape(1, *GRID, WIDTH).transpose(0, 4, 1, 2, 3), audio + 0


def decode(xp: Any, rgb: Any, latent: Any) -> tuple[Any, ...]:
    """A latent `[1, C, t, h, w]` to frames `[1, 2t-1, 8h, 8w, 3]`."""
    cells = xp.tanh(latent[0].transpose(1, 2, 3, 0) @ rgb) / 2 + 0.5
    pixels = cells.repeat(8, axis=1).repeat(8, axis=2)
    return (pixels.repeat(2, axis=0)[None, 1:].astype(ml_dtypes.bfloat16),)


def vocoder(xp: Any, audio: Any) -> tuple[Any, ...]:
    """Audio latent to stereo."""
    wave = xp.tanh(audio.reshape(-1)).repeat(SAMPLES // (AUDIO * WIDTH))
    return (xp.stack([wave, -wave]) / 4,)


def tiles() -> tuple[plan.Tile, ...]:
    """Two tiles in time, two across."""
    times = [((0, 2), (0, 3), (0, 0)), ((1, 3), (2, 5), (1, 0))]
    across = [((0, 3), (0, 24), (0, 16)), ((1, 4), (8, 32), (16, 0))]
    return tuple(
        plan.Tile(
            program="decoder",
            start=(t[0], 0, x[0]),
            stop=(t[1], GRID[1], x[1]),
            out_start=(tt[0], 0, xx[0]),
            out_stop=(tt[1], HEIGHT, xx[1]),
            ramps=(rt, (0, 0), rx),
        )
        for t, tt, rt in times
        for x, xx, rx in across
    )


STATE = ("noise.video", "noise.audio")
CONTEXT = ("context.video", "context.audio")
LATENTS = ("latent.stage1.video", "latent.stage1.audio")
PLAN: plan.Plan = (
    plan.Tokenize(inputs=("prompt",), outputs=("tokens", "mask"), length=LENGTH, bos=1, pad=0),
    plan.Run(program="text_encoder", inputs=("tokens", "mask"), outputs=CONTEXT),
    plan.Constant(outputs=("sigmas",), values=SIGMAS, dtype="float32"),
    plan.Noise(outputs=(STATE[0],), shape=(1, TOKENS, WIDTH), dtype="float32", draw=0),
    plan.Noise(outputs=(STATE[1],), shape=(1, AUDIO, WIDTH), dtype="float32", draw=1),
    plan.Loop(program="denoise_step", sigmas="sigmas", inputs=(*STATE, *CONTEXT), outputs=("video", "audio")),
    plan.Run(program="unpatchify", inputs=("video", "audio"), outputs=LATENTS),
    plan.Run(program="vocoder", inputs=(LATENTS[1],), outputs=("waveform",)),
    plan.DecodeTiles(
        inputs=(LATENTS[0],), outputs=("frames",), frames=FRAMES, height=HEIGHT, width=PIXELS, tiles=tiles()
    ),
    plan.WriteVideo(inputs=("frames", "waveform"), fps=FPS, sample_rate=RATE),
)

TP = "tp"
NONE2, NONE3, NONE4, NONE5 = ((None,) * n for n in (2, 3, 4, 5))


def tensor(
    name: str, shape: tuple[int, ...], dtype: str = "float32", donated: bool = False
) -> bundle.TensorInput:
    """A whole tensor input."""
    spec = (None,) * len(shape)
    return bundle.TensorInput(name=name, shape=shape, dtype=dtype, spec=spec, donated=donated)


def weight(
    name: str, shape: tuple[int, ...], dtype: str, spec: Any, layer: int | None = None
) -> bundle.WeightInput:
    """A weight input."""
    return bundle.WeightInput(name=name, shape=shape, dtype=dtype, spec=spec, layer=layer)


VIDEO, SOUND = (1, TOKENS, WIDTH), (1, AUDIO, WIDTH)
TEXT = (1, LENGTH, WIDTH)


def programs() -> dict[str, tuple[Any, tuple[Any, ...], str | None, bool]]:
    """Per program: function on flat arrays, inputs, weight set, and whether it spans all devices."""
    split = [weight("mix", (64, WIDTH), "float32", (TP, None), layer) for layer in range(LAYERS)]
    return {
        "text_encoder": (
            text_encoder,
            (weight("table", (len(VOCABULARY), WIDTH), "bfloat16", NONE2),
             tensor("tokens", (1, LENGTH), "int32"), tensor("mask", (1, LENGTH), "bool")),
            "text", False,
        ),
        "denoise_step": (
            lambda xp, a, b, back, *rest: denoise_step(xp, (a, b), back, *rest),
            (*split, weight("back", (WIDTH, 64), "float32", (None, TP)),
             tensor("video", VIDEO, donated=True), tensor("audio", SOUND, donated=True),
             tensor("sigma", (1,)), tensor("sigma_next", (1,)),
             tensor("context.video", TEXT, "bfloat16"), tensor("context.audio", TEXT, "bfloat16")),
            "transformer", True,
        ),
        "unpatchify": (unpatchify, (tensor("video", VIDEO), tensor("audio", SOUND)), None, False),
        "vocoder": (vocoder, (tensor("audio", SOUND),), None, False),
        "decoder": (
            decode,
            (weight("rgb", (WIDTH, 3), "float32", NONE2), tensor("latent", (1, WIDTH, 2, 2, 3))),
            "decoder", False,
        ),
    }  # fmt: skip


class Folder:
    """A bundle directory being written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs").mkdir(parents=True, exist_ok=True)

    def blob(self, data: bytes) -> bundle.Blob:
        """Add bytes under their digest."""
        digest = hashlib.sha256(data).hexdigest()
        (self.root / "blobs" / digest).write_bytes(data)
        return bundle.Blob(sha256=digest, size=len(data))

    def tensors(self, arrays: dict[str, np.ndarray]) -> bundle.Blob:
        """Add a safetensors file."""
        from ltx_run.safetensors import header_bytes

        header = header_bytes(((name, array.dtype.name, array.shape) for name, array in arrays.items()), {})
        return self.blob(header + b"".join(array.tobytes() for array in arrays.values()))


def weight_sets(folder: Folder, devices: int) -> dict[str, bundle.WeightSet]:
    """Weight sets; the transformer's are split when there are several devices."""
    whole = weights()
    mix, back = np.split(whole["mix"], devices, axis=1), np.split(whole["back"], devices, axis=1)
    ranks = [{"mix": m, "back": np.ascontiguousarray(b)} for m, b in zip(mix, back, strict=True)]
    split = tuple(folder.tensors(rank) for rank in ranks) if devices > 1 else ()
    shared = None if split else folder.tensors(ranks[0])
    return {
        "text": bundle.WeightSet(shared=folder.tensors({"table": whole["table"]}), ranks=(), key=""),
        "transformer": bundle.WeightSet(shared=shared, ranks=split, key=""),
        "decoder": bundle.WeightSet(shared=folder.tensors({"rgb": whole["rgb"]}), ranks=(), key=""),
    }


def compiled(folder: Folder, name: str, devices: int, whole: bool) -> bundle.Program:
    """Compile one program; `whole` leaves no result split."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from ltx_run.portable import packed
    from ltxbuild.compiler.artifact import portable_artifact

    function, inputs, weight_set, spread = programs()[name]
    count = devices if spread else 1
    mesh = {TP: count} if spread else {}
    grid = Mesh(np.array(jax.devices()[:count]), (TP,))
    donated = [
        i for i, record in enumerate(inputs) if isinstance(record, bundle.TensorInput) and record.donated
    ]
    # denoise_step leaves its first result split on several devices, to be joined on the host.
    axis = TP if count > 1 and not whole else None
    results = [PartitionSpec(None, None, axis), PartitionSpec()] if spread else None
    lowered = jax.jit(
        lambda *arrays: function(jnp, *arrays),
        in_shardings=tuple(NamedSharding(grid, PartitionSpec(*record.spec)) for record in inputs),
        out_shardings=tuple(NamedSharding(grid, r) for r in results)
        if results
        else NamedSharding(grid, PartitionSpec()),
        donate_argnums=donated,
        keep_unused=True,
    ).lower(*(jax.ShapeDtypeStruct(record.shape, record.dtype) for record in inputs))
    executable = lowered.compile()
    specs = [(None, None, axis), NONE3] if spread else [(None,) * len(o.shape) for o in lowered.out_info]
    outputs = tuple(
        bundle.TensorSpec(name=f"out{i}", shape=info.shape, dtype=info.dtype.name, spec=specs[i])
        for i, info in enumerate(lowered.out_info)
    )
    return bundle.Program(
        executable=folder.blob(executable.runtime_executable().serialize()),
        fingerprint=native(count),
        inputs=inputs,
        outputs=outputs,
        mesh=tuple(mesh.items()),
        weights=weight_set,
        key="",
        memory=bundle.Memory(arguments=1, outputs=1, temp=1, code=1),
        flops=1.0,
        portable=bundle.Portable(module=folder.blob(packed(portable_artifact(lowered))), flags={}),
    )


def tokenizer() -> bytes:
    """A word tokenizer without special tokens."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    made = Tokenizer(WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[unk]"))
    made.pre_tokenizer = Whitespace()
    text: str = made.to_str()
    return text.encode()


def write(root: Path, devices: int, whole: bool) -> None:
    """Write the bundle directory; `whole` leaves no result of a program split."""
    folder = Folder(root)
    size = {"height": HEIGHT, "width": PIXELS, "frames": FRAMES, "fps": FPS}
    made = bundle.Bundle(
        name="toy",
        recipe={"name": "toy"},
        variants={"default": bundle.Variant(plan=PLAN, **size)},
        programs={name: compiled(folder, name, devices, whole) for name in programs()},
        weights=weight_sets(folder, devices),
        tokenizer=folder.blob(tokenizer()),
        provenance={},
    )
    (root / "bundle.json").write_bytes(bundle.encode(made))


if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={sys.argv[2]}"
    write(Path(sys.argv[1]), int(sys.argv[2]), whole="whole" in sys.argv)
