"""The small files of a synthetic Gemma-3 directory: configuration and a byte-level tokenizer.

Text never reads the vision tower, but official loaders want a whole directory; a one-layer tower is added.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")
IMAGE_TOKENS = {
    "image_token": "<image_soft_token>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
}
FIRST_IMAGE_ID = 310
VISION_WIDTH = 16


def tokenizer_json() -> dict[str, Any]:
    """Byte-level tokenizer: ids 0-3 special, 4-259 the bytes, image tokens from 310; BOS is put first."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *alphabet))}
    fillers = {f"<unused{i}>": i for i in range(len(vocabulary), FIRST_IMAGE_ID)}
    images = {token: FIRST_IMAGE_ID + i for i, token in enumerate(IMAGE_TOKENS.values())}
    tokenizer = Tokenizer(models.BPE(vocabulary | fillers | images, [], unk_token="<unk>"))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (*SPECIAL, *images)])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    return data


def gemma_config(text_config: dict[str, Any]) -> dict[str, Any]:
    """`config.json` of the directory."""
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "torch_dtype": "bfloat16",
        "text_config": text_config,
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": VISION_WIDTH,
            "intermediate_size": VISION_WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "vision_use_head": False,
        },
        "mm_tokens_per_image": 4,
        "image_token_index": FIRST_IMAGE_ID,
        "boi_token_index": FIRST_IMAGE_ID + 1,
        "eoi_token_index": FIRST_IMAGE_ID + 2,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }


def vision_shapes(hidden_size: int) -> dict[str, tuple[int, ...]]:
    """Tensors of the one-layer vision tower and its projector."""
    width = VISION_WIDTH
    tower = "vision_tower.vision_model"
    layer = f"{tower}.encoder.layers.0"
    shapes: dict[str, tuple[int, ...]] = {
        f"{tower}.embeddings.patch_embedding.weight": (width, 3, 14, 14),
        f"{tower}.embeddings.patch_embedding.bias": (width,),
        f"{tower}.embeddings.position_embedding.weight": (4, width),
        "multi_modal_projector.mm_input_projection_weight": (width, hidden_size),
        "multi_modal_projector.mm_soft_emb_norm.weight": (width,),
    }
    linears = [f"{layer}.self_attn.{p}_proj" for p in ("q", "k", "v", "out")] + [
        f"{layer}.mlp.fc1",
        f"{layer}.mlp.fc2",
    ]
    for name in linears:
        shapes |= {f"{name}.weight": (width, width), f"{name}.bias": (width,)}
    for name in (f"{layer}.layer_norm1", f"{layer}.layer_norm2", f"{tower}.post_layernorm"):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return shapes
