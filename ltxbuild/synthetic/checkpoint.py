"""Synthetic checkpoints: random weights in the official layout, for demos, tests and benchmarks.

Four parts are written as the official release has them: the single file with its metadata, a Gemma-3
directory with a working byte-level tokenizer, a latent upsampler, and a LoRA on every linear layer of the
transformer.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ltx_run.safetensors import header_bytes
from ltxbuild.components import COMPONENTS, ModelConfig
from ltxbuild.model.config import GemmaConfig, LtxConfig, UpsamplerKind
from ltxbuild.model.params import ParamSpec
from ltxbuild.synthetic.filters import binomial, lowpass_filter, mel_filterbank, stft_basis
from ltxbuild.synthetic.gemma_directory import IMAGE_TOKENS, gemma_config, tokenizer_json, vision_shapes
from ltxbuild.synthetic.shipped import shipped, shipped_config
from ltxbuild.weights.lora import DOWN, UP, linear_weights

MODEL_FILE = "ltx-2.3-tiny.safetensors"
UPSAMPLER_FILES: Mapping[UpsamplerKind, str] = {
    "spatial_x2": "ltx-2.3-tiny-upsampler-x2.safetensors",
    "spatial_x1.5": "ltx-2.3-tiny-upsampler-x1.5.safetensors",
    "temporal_x2": "ltx-2.3-tiny-temporal-upsampler-x2.safetensors",
}
GEMMA_DIRECTORY = "gemma"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT32 = np.dtype(np.float32)
Shapes = dict[str, tuple[int, ...]]
LORA_FILE = "ltx-2.3-tiny-distilled-lora.safetensors"
LORA_RANKS = (2, 4, 8)
GAINS = {".convs2.": 0.3, ".conv_post.": 0.2, ".lora_B.": 0.3}
"""The vocoder sums many residual branches and clamps the result to [-1, 1]. At full size a rounding of its
input would grow tenfold on the way through, and most samples would lie on the clamp. A LoRA changes a weight
by a part of its size."""


def write_checkpoint(directory: Path, name: str = "ltx-2.3-tiny", seed: int = 0) -> tuple[Path, Path, Path]:
    """Write a whole synthetic checkpoint.

    Args:
        directory: Where to; made if it isn't there.
        name: Shipped configuration to follow.
        seed: Of the random weights; every tensor depends on the seed and its own name only.

    Returns:
        Model file, Gemma directory, file of the spatial x2 upsampler.
    """
    write_model(directory, shipped(name), seed)
    return (
        directory / MODEL_FILE,
        directory / GEMMA_DIRECTORY,
        write_upsampler(directory, "spatial_x2", name, seed),
    )


def write_model(directory: Path, data: Mapping[str, Any], seed: int = 0) -> None:
    """Write the single file and the Gemma directory of a configuration, which is given as JSON."""
    gemma = directory / GEMMA_DIRECTORY
    gemma.mkdir(parents=True, exist_ok=True)
    config = ModelConfig(LtxConfig.model_validate(data["ltx"]), GemmaConfig.model_validate(data["gemma"]))
    single, text = _split(config)
    metadata = {"config": json.dumps(data["ltx"]), "model_version": "2.3.0"}
    write_file(directory / MODEL_FILE, single, metadata, seed)
    write_file(
        gemma / "model.safetensors", text | vision_shapes(config.gemma.hidden_size), {"format": "pt"}, seed
    )
    for file, content in _gemma_files(data["gemma"]).items():
        (gemma / file).write_text(json.dumps(content, indent=1), encoding="utf-8")


def write_upsampler(directory: Path, kind: UpsamplerKind, name: str = "ltx-2.3-tiny", seed: int = 0) -> Path:
    """Write a latent upsampler for a synthetic checkpoint.

    Args:
        directory: Where to; must be there.
        kind: What it scales.
        name: Shipped configuration to follow.
        seed: Of the random weights.
    """
    table = COMPONENTS["upsampler"].table(shipped_config(name, kind))
    shapes = {key: shape for key, shape in _keys(table) if not key.startswith("vae.")}
    path = directory / UPSAMPLER_FILES[kind]
    write_file(path, shapes, {"config": json.dumps(shipped(name)["upsamplers"][kind])}, seed)
    return path


def write_lora(directory: Path, name: str = "ltx-2.3-tiny", seed: int = 0) -> Path:
    """Write a LoRA for the transformer of a synthetic checkpoint; ranks differ from layer to layer.

    Args:
        directory: Where to; must be there.
        name: Shipped configuration to follow.
        seed: Of the random weights.
    """
    shapes: Shapes = {}
    weights = linear_weights({"transformer": COMPONENTS["transformer"].table(shipped_config(name))})
    for number, (key, (out_features, in_features)) in enumerate(weights.items()):
        module = key.removeprefix("model.").removesuffix(".weight")
        rank = LORA_RANKS[number % len(LORA_RANKS)]
        shapes |= {f"{module}{DOWN}": (rank, in_features), f"{module}{UP}": (out_features, rank)}
    path = directory / LORA_FILE
    write_file(path, shapes, {"format": "pt"}, seed)
    return path


def _split(config: ModelConfig) -> tuple[Shapes, Shapes]:
    """Checkpoint keys and shapes of the single file and of the Gemma directory."""
    single: Shapes = {}
    text: Shapes = {}
    for name, component in COMPONENTS.items():
        if name != "upsampler":
            for key, shape in _keys(component.table(config)):
                (text if key.startswith("language_model.") else single)[key] = shape
    return single, text


def _keys(table: Iterable[ParamSpec]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for spec in table:
        for key in spec.sources:
            yield key, spec.source_shape


def _gemma_files(text_config: dict[str, Any]) -> dict[str, Any]:
    return {
        "config.json": gemma_config(text_config),
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": {
            # Gemma's own class would build rules of its own around the vocabulary of this tokenizer.json.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "extra_special_tokens": IMAGE_TOKENS,
        },
        "processor_config.json": {"processor_class": "Gemma3Processor"},
        "preprocessor_config.json": {
            "image_processor_type": "Gemma3ImageProcessor",
            "processor_class": "Gemma3Processor",
            "do_resize": True,
            "size": {"height": 28, "width": 28},
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        },
    }


def write_file(path: Path, shapes: Shapes, metadata: dict[str, str], seed: int) -> None:
    """Write random tensors tensor by tensor, in key order; scale-shift tables in f32, the rest in bf16."""
    tensors = [(key, _dtype(key).name, shapes[key]) for key in sorted(shapes)]
    with path.open("wb") as file:
        file.write(header_bytes(tensors, metadata))
        for key, dtype, shape in tensors:
            file.write(random_tensor(key, shape, seed).astype(dtype).tobytes())


def _dtype(key: str) -> np.dtype[Any]:
    return FLOAT32 if "scale_shift_table" in key else BFLOAT16


def random_tensor(key: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Weights that keep signals at a natural size: neither dying nor exploding through the layers.

    The filters of vocoder and upsampler have their true values, since a random filter bank is no filter bank.
    """
    last = key.rsplit(".", 1)[-1]
    if last == "filter":
        return lowpass_filter(shape[-1]).reshape(shape)
    if last in ("forward_basis", "inverse_basis"):
        return stft_basis(shape[-1]).reshape(shape)
    if last == "kernel":
        return binomial(shape[-1]).reshape(shape)
    if last == "mel_basis":
        return mel_filterbank(*shape)
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    noise = np.random.Generator(np.random.Philox(int.from_bytes(digest[:8], "little")))
    values = noise.standard_normal(shape, dtype=np.float32)
    if "scale_shift_table" in key:
        return values * np.float32(0.3)
    if len(shape) > 1:
        fan_in = max(1, math.prod(shape[1:]))
        gain = next((gain for part, gain in GAINS.items() if part in key), 1.0)
        return values if last == "learnable_registers" else values * np.float32(gain / math.sqrt(fan_in))
    if last == "std-of-means" or (last == "weight" and key.endswith(("q_norm.weight", "k_norm.weight"))):
        return 1 + np.float32(0.1) * values
    if last == "weight" and "norm" in key and not key.startswith("language_model."):
        return 1 + np.float32(0.1) * values
    return np.float32(0.1) * values
