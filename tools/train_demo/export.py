"""The trained model in the official formats: single file, Gemma directory, upsampler."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ltx_run.safetensors import header_bytes
from ltxbuild.components import COMPONENTS, ModelConfig
from ltxbuild.synthetic.checkpoint import random_tensor
from ltxbuild.synthetic.gemma_directory import IMAGE_TOKENS, gemma_config, vision_shapes
from tools.train_demo.config import sections
from tools.train_demo.weights import Params, checkpoint_tensors

MODEL, UPSAMPLER, GEMMA = "ltx-2.3-demo.safetensors", "ltx-2.3-demo-upsampler-x2.safetensors", "gemma"
VERSION = "2.3.0"
TOWER = "language_model."
Tensors = dict[str, NDArray[np.float32]]


def write(trained: Mapping[str, Params], config: ModelConfig, tokenizer: Path, directory: Path) -> None:
    """Write all files.

    Args:
        trained: Parameters of every component, by name.
        config: Their sizes.
        tokenizer: `tokenizer.json`.
        directory: Where the files go.
    """
    tensors: dict[str, Tensors] = {
        name: checkpoint_tensors(COMPONENTS[name].table(config), params) for name, params in trained.items()
    }
    upsampler = {k: v for k, v in tensors.pop("upsampler").items() if not k.startswith("vae.")}
    everything = {key: value for component in tensors.values() for key, value in component.items()}
    single = {key: value for key, value in everything.items() if not key.startswith(TOWER)}
    tower = {key: value for key, value in everything.items() if key.startswith(TOWER)}
    data = sections()
    metadata = {"config": json.dumps(data["ltx"]), "model_version": VERSION, "license": "Apache-2.0"}
    _write_file(directory / MODEL, single, metadata)
    _write_file(directory / UPSAMPLER, upsampler, {"config": json.dumps(data["upsampler"])})
    _write_gemma(directory / GEMMA, tower, data["gemma"], json.loads(tokenizer.read_text(encoding="utf-8")))


def _write_file(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """In key order; scale-shift tables in f32, the rest in bf16, as in the official files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dtypes = {key: "float32" if "scale_shift_table" in key else "bfloat16" for key in sorted(tensors)}
    with path.open("wb") as file:
        file.write(header_bytes([(key, dtypes[key], tensors[key].shape) for key in dtypes], metadata))
        for key, dtype in dtypes.items():
            kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32
            file.write(np.ascontiguousarray(tensors[key]).astype(kind).tobytes())


def _write_gemma(directory: Path, tower: Tensors, text: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    """The text tower; the vision tower that nobody reads stays random."""
    vision = {key: random_tensor(key, shape, 0) for key, shape in vision_shapes(text["hidden_size"]).items()}
    _write_file(directory / "model.safetensors", tower | vision, {"format": "pt"})
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    image, begin, end = (ids[token] for token in IMAGE_TOKENS.values())
    indices = {"image_token_index": image, "boi_token_index": begin, "eoi_token_index": end}
    files = {
        "config.json": gemma_config(text) | indices,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {
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
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
