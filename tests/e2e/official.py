"""Loading the official modules through the official key maps.

As in the official loader, which starts from empty modules, no parameter is given a random value first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from oracles import import_oracles
from reference import TEXT_LENGTH, Files, Reference
from torch import Tensor

import_oracles()

from ltx_core.loader.sd_ops import SDOps  # noqa: E402
from ltx_core.loader.sft_loader import SafetensorsModelStateDictLoader  # noqa: E402
from ltx_core.model.audio_vae import model_configurator as audio_vae  # noqa: E402
from ltx_core.model.transformer.model import X0Model  # noqa: E402
from ltx_core.model.transformer.model_configurator import (  # noqa: E402
    LTXV_MODEL_COMFY_RENAMING_MAP,
    LTXModelConfigurator,
)
from ltx_core.model.upsampler.model_configurator import LatentUpsamplerConfigurator  # noqa: E402
from ltx_core.model.video_vae import model_configurator as video_vae  # noqa: E402
from ltx_core.text_encoders.gemma.embeddings_connector import (  # noqa: E402
    AudioEmbeddings1DConnectorConfigurator,
    Embeddings1DConnectorConfigurator,
)
from ltx_core.text_encoders.gemma.embeddings_processor import EmbeddingsProcessor  # noqa: E402
from ltx_core.text_encoders.gemma.encoders.base_encoder import GemmaTextEncoder  # noqa: E402
from ltx_core.text_encoders.gemma.encoders.encoder_configurator import (  # noqa: E402
    EMBEDDINGS_PROCESSOR_KEY_OPS,
    GEMMA_LLM_KEY_OPS,
)
from ltx_core.text_encoders.gemma.feature_extractor import FeatureExtractorV2  # noqa: E402
from ltx_core.text_encoders.gemma.tokenizer import LTXVGemmaTokenizer  # noqa: E402
from transformers import Gemma3Config, Gemma3ForConditionalGeneration  # noqa: E402
from transformers.initialization import no_init_weights  # noqa: E402

KEY_MAPS = (
    LTXV_MODEL_COMFY_RENAMING_MAP,
    EMBEDDINGS_PROCESSOR_KEY_OPS,
    video_vae.VAE_ENCODER_COMFY_KEYS_FILTER,
    video_vae.VAE_DECODER_COMFY_KEYS_FILTER,
    audio_vae.AUDIO_VAE_ENCODER_COMFY_KEYS_FILTER,
    audio_vae.AUDIO_VAE_DECODER_COMFY_KEYS_FILTER,
    audio_vae.VOCODER_COMFY_KEYS_FILTER,
)
"""Of every official module that reads the model file."""
CONVOLUTIONAL = {
    "video_encoder": (video_vae.VideoEncoderConfigurator, video_vae.VAE_ENCODER_COMFY_KEYS_FILTER),
    "video_decoder": (video_vae.VideoDecoderConfigurator, video_vae.VAE_DECODER_COMFY_KEYS_FILTER),
    "audio_decoder": (audio_vae.AudioDecoderConfigurator, audio_vae.AUDIO_VAE_DECODER_COMFY_KEYS_FILTER),
    "vocoder": (audio_vae.VocoderConfigurator, audio_vae.VOCODER_COMFY_KEYS_FILTER),
}
PARTS = ("text_encoder", "embeddings", "transformer", "upsampler", *CONVOLUTIONAL)
"""Modules of a reference."""


def read_state(
    files: list[Path], operations: SDOps, dtype: torch.dtype | None = None, *, without: str | None = None
) -> dict[str, Tensor]:
    """Tensors that an official key map picks, under the module's names.

    Args:
        files: Of the checkpoint.
        operations: The key map.
        dtype: What every tensor is cast to; None leaves them alone.
        without: Part of the names of tensors that belong to another module.
    """
    state = SafetensorsModelStateDictLoader().load([str(f) for f in files], operations).sd
    wanted = {key: value for key, value in state.items() if without is None or without not in key}
    return {key: value if dtype is None else value.to(dtype) for key, value in wanted.items()}


def fill(module: torch.nn.Module, state: Mapping[str, Tensor]) -> Any:
    """Give a module its weights; every name must be there and none may be left.

    The tensors replace the parameters, as in the official loader: buffers that are computed and not loaded
    (frequencies of rotary embeddings, resampling filters) stay in f32 whatever the weights are.
    """
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def load(files: Files, dtype: torch.dtype) -> Reference:
    """Load a checkpoint through the official key maps.

    Raises:
        RuntimeError: A module lacks a tensor or is given one that it doesn't have.
    """
    return Reference(dtype=dtype, **{name: load_part(name, files, dtype) for name in PARTS})


@no_init_weights()
def load_part(name: str, files: Files, dtype: torch.dtype) -> Any:
    """Load one module of `PARTS`."""
    if name == "text_encoder":
        return _text_encoder(files.gemma, dtype)
    if name == "upsampler":
        return _upsampler(files.upsampler, dtype)
    config = SafetensorsModelStateDictLoader().metadata(str(files.model))
    if name == "embeddings":
        return _embeddings(files, config, dtype)
    if name == "transformer":
        return _transformer(files.model, config, dtype)
    configurator, operations = CONVOLUTIONAL[name]
    cast = torch.float32 if name == "vocoder" else dtype
    return fill(configurator.from_config(config), read_state([files.model], operations, cast))


@no_init_weights()
def load_transformer(model: Path, dtype: torch.dtype) -> X0Model:
    """The transformer of a model file."""
    config = SafetensorsModelStateDictLoader().metadata(str(model))
    return _transformer(model, config, dtype)


@no_init_weights()
def load_audio_encoder(model: Path) -> Any:
    """The one module of the model file that no pipeline here runs."""
    config = SafetensorsModelStateDictLoader().metadata(str(model))
    module = audio_vae.AudioEncoderConfigurator.from_config(config)
    return fill(module, read_state([model], audio_vae.AUDIO_VAE_ENCODER_COMFY_KEYS_FILTER, torch.float32))


def _text_encoder(directory: Path, dtype: torch.dtype) -> GemmaTextEncoder:
    """Gemma from its directory; the published configurator knows the 12B sizes only."""
    config = Gemma3Config.from_pretrained(directory)
    module = GemmaTextEncoder(
        Gemma3ForConditionalGeneration(config), LTXVGemmaTokenizer(str(directory), TEXT_LENGTH)
    )
    state = read_state(sorted(directory.glob("model*.safetensors")), GEMMA_LLM_KEY_OPS, dtype)
    # Newer releases of transformers have no `vision_model` inside the tower.
    tower = "vision_tower."
    return fill(module, {name.replace(f"{tower}vision_model.", tower): state[name] for name in state})


def _embeddings(files: Files, config: dict[str, Any], dtype: torch.dtype) -> EmbeddingsProcessor:
    text = json.loads((files.gemma / "config.json").read_text(encoding="utf-8"))["text_config"]
    hidden, states = text["hidden_size"], text["num_hidden_layers"] + 1
    video = Embeddings1DConnectorConfigurator.from_config(config)
    audio = AudioEmbeddings1DConnectorConfigurator.from_config(config)
    linears = (torch.nn.Linear(hidden * states, connector.inner_dim) for connector in (video, audio))
    to_video, to_audio = linears
    module = EmbeddingsProcessor(
        feature_extractor=FeatureExtractorV2(to_video, hidden, to_audio),
        video_connector=video,
        audio_connector=audio,
    )
    return fill(module, read_state([files.model], EMBEDDINGS_PROCESSOR_KEY_OPS, dtype))


def _transformer(model: Path, config: dict[str, Any], dtype: torch.dtype) -> X0Model:
    """The transformer, in bf16 not cast at all: its tables stay f32 and are rounded where they are used."""
    cast = None if dtype == torch.bfloat16 else dtype
    state = read_state([model], LTXV_MODEL_COMFY_RENAMING_MAP, cast, without="_embeddings_connector.")
    return X0Model(fill(LTXModelConfigurator.from_config(config), state)).eval()


def _upsampler(path: Path, dtype: torch.dtype) -> Any:
    config = SafetensorsModelStateDictLoader().metadata(str(path))
    state = read_state([path], SDOps("upsampler").with_matching(), dtype)
    return fill(LatentUpsamplerConfigurator.from_config(config), state)
