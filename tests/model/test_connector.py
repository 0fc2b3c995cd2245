"""The text connectors against the official ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import text_oracles as oracle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from loading import AGREES, key_diff, load, prefixed_state
from ltx_core.text_encoders.gemma.embeddings_connector import (
    AudioEmbeddings1DConnectorConfigurator,
    Embeddings1DConnectorConfigurator,
)
from ltx_core.text_encoders.gemma.embeddings_processor import EmbeddingsProcessor, convert_to_additive_mask
from oracles import randomize

from ltxbuild.model import connector
from ltxbuild.model.config import TransformerConfig

SLOTS = 256
LENGTHS = [5, 256, 130]


def official(**sizes: Any) -> EmbeddingsProcessor:
    """Both official connectors; sizes of the tiny checkpoint where not given."""
    metadata = {"transformer": oracle.transformer_section(**sizes)}
    return EmbeddingsProcessor(
        video_connector=Embeddings1DConnectorConfigurator.from_config(metadata),
        audio_connector=AudioEmbeddings1DConnectorConfigurator.from_config(metadata),
    )


def state_of(processor: EmbeddingsProcessor) -> dict[str, torch.Tensor]:
    """Both state dicts under the names of the official file."""
    prefix = "model.diffusion_model."
    return {
        **prefixed_state(processor.video_connector, f"{prefix}video_embeddings_connector."),
        **prefixed_state(processor.audio_connector, f"{prefix}audio_embeddings_connector."),
    }


class Case:
    """Tiny connectors, three prompts of different lengths and their features."""

    def __init__(self) -> None:
        self.processor = randomize(official().float())
        self.config = oracle.tiny_transformer()
        self.table = connector.params(self.config)
        self.state = state_of(self.processor)
        self.mask = oracle.left_padded(LENGTHS, SLOTS)[1]
        rng = np.random.default_rng(3)
        self.features = tuple(
            rng.standard_normal((len(LENGTHS), SLOTS, width)).astype(np.float32)
            for width in (self.config.video_dim, self.config.audio_dim)
        )

    def official(self) -> list[np.ndarray]:
        # The official connector takes one prompt at a time: it indexes with the first one's mask.
        outputs = []
        for i in range(len(LENGTHS)):
            video, audio = (torch.from_numpy(f[i : i + 1]) for f in self.features)
            mask = convert_to_additive_mask(torch.from_numpy(self.mask[i : i + 1]), torch.float32)
            outputs.append(self.processor.create_embeddings(video, audio, mask)[:2])
        return [torch.cat(parts).numpy() for parts in zip(*outputs, strict=True)]

    def ours(self, params: dict[str, Any], dtype: Any = jnp.float32) -> tuple[jax.Array, jax.Array]:
        inputs = (*(jnp.asarray(f, dtype) for f in self.features), self.mask)
        return jax.jit(lambda p, v, a, m: connector.connect(p, v, a, m, self.config))(params, *inputs)


@pytest.fixture(scope="module")
def case() -> Case:
    """The tiny connectors."""
    return Case()


def test_table_names_the_official_weights_at_full_size() -> None:
    """The 22B connectors have exactly the 129 + 129 tensors of the table."""
    with torch.device("meta"):
        state = state_of(official(**oracle.FULL_SIZES))
    config = TransformerConfig.model_validate(oracle.transformer_section(**oracle.FULL_SIZES))
    table = connector.params(config)
    assert key_diff(table, state) == AGREES
    assert sum(len(spec.sources) for spec in table) == 129 + 129


def test_contexts_equal_the_official_ones(case: Case) -> None:
    """Prompts of several lengths in one batch, one of them without pads, give the official contexts."""
    assert key_diff(case.table, case.state) == AGREES
    for ours, reference in zip(case.ours(load(case.table, case.state)), case.official(), strict=True):
        assert np.abs(ours - reference).max() <= 1e-5 * np.abs(reference).max()


def test_written_out_blocks_equal_scanned_ones(case: Case) -> None:
    """A sequence of block trees gives what the stacked tree gives."""
    params = load(case.table, case.state)
    written = {
        name: {
            **tree,
            "blocks": [jax.tree.map(lambda leaf, i=i: leaf[i], tree["blocks"]) for i in range(2)],
        }
        for name, tree in params.items()
    }
    for one, other in zip(case.ours(params), case.ours(written), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_bf16_stays_close_to_f32(case: Case) -> None:
    """The bf16 contexts point where the f32 ones do."""
    f32, bf16 = (case.ours(load(case.table, case.state, d), d) for d in (jnp.float32, jnp.bfloat16))
    for exact, rounded in zip(f32, bf16, strict=True):
        assert rounded.dtype == jnp.bfloat16
        a, b = (np.asarray(x, np.float32).ravel() for x in (exact, rounded))
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) >= 0.999


def test_length_must_be_a_multiple_of_the_registers(case: Case) -> None:
    """A prompt length that the registers can't tile is refused with both numbers."""
    video, audio = (f[:, :200] for f in case.features)
    with pytest.raises(ValueError, match="200 text slots are no multiple of the 128 registers"):
        connector.connect(load(case.table, case.state), video, audio, case.mask[:, :200], case.config)


@settings(max_examples=50, deadline=None)
@given(arrays(bool, (3, 16), elements=st.booleans()))
def test_real_tokens_come_first_and_keep_their_order(mask: np.ndarray) -> None:
    """For any mask, the first slots read the real tokens in the order a stable sort gives."""
    ours = np.asarray(connector.valid_first(jnp.asarray(mask)))
    for row, reference, real in zip(ours, np.argsort(~mask, axis=1, kind="stable"), mask, strict=True):
        count = real.sum()
        np.testing.assert_array_equal(row[:count], reference[:count])
        assert (row[count:] == 15).all()
