"""Checkpoints: what fits is mapped, what doesn't is refused before any work, in one message."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltx_run.safetensors import SafetensorsError, SafetensorsFile, header_bytes
from ltxbuild.components import COMPONENTS, ModelConfig
from ltxbuild.errors import CheckpointError
from ltxbuild.model.params import ParamTable
from ltxbuild.synthetic.checkpoint import write_checkpoint
from ltxbuild.synthetic.shipped import shipped_config
from ltxbuild.weights.checkpoint import Checkpoint, read_config, validate


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint, written once."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder)
    return folder


@pytest.fixture
def checkpoint(pristine: Path, tmp_path: Path) -> Checkpoint:
    """A copy to damage."""
    shutil.copytree(pristine, tmp_path / "copy")
    (model,) = (tmp_path / "copy").glob("*tiny.safetensors")
    (upsampler,) = (tmp_path / "copy").glob("*upsampler*")
    return Checkpoint(model, tmp_path / "copy/gemma", upsampler)


def tables(config: ModelConfig) -> dict[str, ParamTable]:
    """The tables of every component."""
    return {name: component.table(config) for name, component in COMPONENTS.items()}


def rewrite(
    path: Path,
    *,
    metadata: Callable[[dict[str, str]], None] | None = None,
    drop: str | None = None,
    add: tuple[str, tuple[int, ...]] | None = None,
    reshape: tuple[str, tuple[int, ...]] | None = None,
) -> None:
    """Write a safetensors file again with a change."""
    file = SafetensorsFile(path)
    tensors = {key: np.array(file.view(key)) for key in file.header.entries if key != drop}
    if add:
        tensors[add[0]] = np.zeros(add[1], np.float32)
    if reshape:
        tensors[reshape[0]] = tensors[reshape[0]].reshape(reshape[1])
    changed = dict(file.header.metadata)
    if metadata:
        metadata(changed)
    parts = [header_bytes([(k, t.dtype.name, t.shape) for k, t in tensors.items()], changed)]
    path.write_bytes(b"".join([*parts, *(t.tobytes() for t in tensors.values())]))


def refusal(checkpoint: Checkpoint) -> str:
    """The message that a damaged checkpoint gets."""
    with pytest.raises((CheckpointError, SafetensorsError)) as caught:
        validate(checkpoint, tables(read_config(checkpoint)))
    assert caught.value.exit_code == 2
    return caught.value.message


def test_the_synthetic_checkpoint_fits(checkpoint: Checkpoint) -> None:
    """What make-tiny-checkpoint writes is complete: configuration and every tensor."""
    config = read_config(checkpoint)
    assert config == shipped_config("ltx-2.3-tiny")
    files = validate(checkpoint, tables(config))
    assert files["model.diffusion_model.patchify_proj.weight"] == checkpoint.model
    assert files["language_model.model.norm.weight"].parent == checkpoint.text_encoder
    assert files["final_conv.weight"] == checkpoint.upsampler


def test_the_full_model_has_the_official_number_of_tensors() -> None:
    """At 22 B the tables of the single file name 5947 tensors, each once."""
    keys = [
        key
        for table in tables(shipped_config("ltx-2.3-22b")).values()
        for spec in table
        for key in spec.sources
    ]
    single = {key for key in keys if key.startswith(("model.", "vae.", "audio_vae.", "vocoder.", "text_"))}
    assert len(single) == 5947


def test_missing_extra_and_misshapen_tensors_are_listed_together(checkpoint: Checkpoint) -> None:
    """One message names all three, with shapes."""
    bias = "model.diffusion_model.patchify_proj.bias"
    rewrite(
        checkpoint.model,
        drop="vae.decoder.conv_in.conv.bias",
        add=("vae.surprise", (3,)),
        reshape=(bias, (8, 8)),
    )
    message = refusal(checkpoint)
    assert "3 problems" in message
    assert "missing: vae.decoder.conv_in.conv.bias" in message
    assert "extra: vae.surprise [3]" in message
    assert f"shape: {bias} is [8, 8], expected [64]" in message


@pytest.mark.parametrize("version", ["2.0.0", "2.5", "2", "x"])
def test_another_generation_is_refused(checkpoint: Checkpoint, version: str) -> None:
    """LTX-2.0 and 2.5 files are named by their version."""
    rewrite(checkpoint.model, metadata=lambda m: m.update(model_version=version))
    assert f"model_version {version}; this builder computes LTX-2.3 only" in refusal(checkpoint)


def test_a_file_without_metadata_is_refused(checkpoint: Checkpoint) -> None:
    """A bare safetensors file is no official checkpoint."""
    rewrite(checkpoint.model, metadata=dict.clear)
    assert "no model_version and no config" in refusal(checkpoint)


def edit_config(section: str, field: str, value: Any) -> Callable[[dict[str, str]], None]:
    """Change one field of the config metadata."""
    return whole_config(lambda config: config[section].update({field: value}))


def whole_config(change: Callable[[Any], object]) -> Callable[[dict[str, str]], None]:
    """Change the config metadata in place."""

    def rewritten(metadata: dict[str, str]) -> None:
        config = json.loads(metadata["config"])
        change(config)
        metadata["config"] = json.dumps(config)

    return rewritten


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("transformer", "rope_type", "interleaved"),
        ("transformer", "apply_gated_attention", False),
        ("transformer", "caption_proj_before_connector", False),
        ("vae", "timestep_conditioning", True),
        ("vae", "spatial_padding_mode", "reflect"),
    ],
)
def test_switches_of_other_models_are_refused(
    checkpoint: Checkpoint, section: str, field: str, value: Any
) -> None:
    """A configuration that changes the arithmetic is named with field and value."""
    rewrite(checkpoint.model, metadata=edit_config(section, field, value))
    message = refusal(checkpoint)
    assert f"{section}.{field}" in message
    assert repr(value) in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["vocoder"]["vocoder"].pop("use_tanh_at_final"), "vocoder.vocoder.use_tanh_at_final"),
        (lambda c: c["vocoder"]["bwe"].update(apply_final_activation=True), "bwe.apply_final_activation"),
        (lambda c: c["vae"]["decoder_blocks"].append(["attn_res_x", {}]), "vae.decoder_blocks: attn_res_x"),
        (lambda c: c["vae"]["encoder_blocks"].append(["res_x_y", 2]), "vae.encoder_blocks: res_x_y"),
        (lambda c: c["vae"]["encoder_blocks"].append(["res_x", None]), "is not a pair of kind and options"),
        (lambda c: c["vae"].update(decoder_blocks="res_x"), "vae: Value error, decoder_blocks is 'res_x'"),
        (lambda c: c["audio_vae"].update(model="x"), "audio_vae: Value error, model is 'x', not a section"),
        (lambda c: c["audio_vae"].update(model={}), "audio_vae.mid_block_add_attention"),
    ],
)
def test_parts_of_other_models_are_refused(checkpoint: Checkpoint, change: Any, said: str) -> None:
    """What is computed otherwise, by a field that is absent or by a kind of block, is named."""
    rewrite(checkpoint.model, metadata=whole_config(change))
    assert said in refusal(checkpoint)


def test_what_the_official_loader_does_not_need_may_be_absent(checkpoint: Checkpoint) -> None:
    """Its defaults are ours, the audio connector's sizes are then the video connector's."""

    def change(config: Any) -> None:
        del config["transformer"]["caption_channels"], config["vae"]["norm_layer"]
        for name in ("norm_type", "causality_axis"):
            config["audio_vae"]["model"]["params"]["ddconfig"].pop(name)
        config["transformer"].pop("audio_connector_num_attention_heads")

    before = read_config(checkpoint)
    rewrite(checkpoint.model, metadata=whole_config(change))
    assert read_config(checkpoint) == before
    assert checkpoint.upsampler is not None
    rewrite(checkpoint.upsampler, metadata=lambda m: m.update(config=without_class(m["config"])))
    assert read_config(checkpoint) == before


def without_class(config: str) -> str:
    """A configuration that doesn't say what it is of."""
    return json.dumps({name: value for name, value in json.loads(config).items() if name != "_class_name"})


def test_a_gemma_of_another_size_is_refused(checkpoint: Checkpoint) -> None:
    """Gemma-4B in place of 12B is told by its width."""
    path = checkpoint.text_encoder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["text_config"]["hidden_size"] = 48
    path.write_text(json.dumps(config), encoding="utf-8")
    assert "width 48 with 5 states, 240 features; the checkpoint was trained with 320" in refusal(checkpoint)


def test_a_text_encoder_that_is_no_gemma_is_refused(checkpoint: Checkpoint) -> None:
    """The model type decides."""
    path = checkpoint.text_encoder / "config.json"
    path.write_text(json.dumps({"model_type": "t5"}), encoding="utf-8")
    assert "model_type 't5'" in refusal(checkpoint)


def test_truncated_and_foreign_files_are_refused(checkpoint: Checkpoint) -> None:
    """A file cut short is told with both sizes; one that is no safetensors file as such."""
    data = checkpoint.model.read_bytes()
    checkpoint.model.write_bytes(data[:-100])
    assert f"truncated: the header needs {len(data)} bytes, the file has {len(data) - 100}" in refusal(
        checkpoint
    )
    checkpoint.model.write_bytes(b"\xff" * 64)
    assert "not a safetensors file" in refusal(checkpoint)


def test_absent_parts_are_named(checkpoint: Checkpoint) -> None:
    """A missing file or a directory without its parts is said plainly."""
    (checkpoint.text_encoder / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in refusal(checkpoint)
    assert "does not exist" in refusal(Checkpoint(Path("nowhere.safetensors"), checkpoint.text_encoder))


def test_an_upsampler_must_be_one(checkpoint: Checkpoint) -> None:
    """The single file given as upsampler is refused."""
    assert "not a latent upsampler" in refusal(
        Checkpoint(checkpoint.model, checkpoint.text_encoder, checkpoint.model)
    )
