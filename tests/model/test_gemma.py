"""The text encoder against transformers' Gemma-3 and the official feature extractor."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import text_oracles as oracle
import torch
from loading import AGREES, key_diff, load
from ltx_core.text_encoders.gemma.feature_extractor import norm_and_concat_per_token_rms
from oracles import randomize
from transformers.models.gemma3.modeling_gemma3 import apply_rotary_pos_emb

from ltxbuild.model import features, gemma
from ltxbuild.model.config import GemmaConfig, TransformerConfig

SLOTS = 128
LENGTHS = [7, 128, 60]


class Case:
    """A tiny official text encoder, its prompts and its features."""

    def __init__(self, window: int) -> None:
        self.tower, self.config = oracle.tower(sliding_window=window)
        self.transformer = oracle.tiny_transformer()
        self.extractor = oracle.extractor(self.transformer, oracle.HIDDEN, oracle.LAYERS)
        randomize(self.extractor, seed=2)
        self.table = gemma.params(self.config, self.transformer)
        self.state = oracle.text_state(self.tower, self.extractor)
        self.tokens, self.mask = oracle.left_padded(LENGTHS, SLOTS)

    def official(self) -> list[np.ndarray]:
        tokens, mask = torch.from_numpy(self.tokens).long(), torch.from_numpy(self.mask)
        with torch.no_grad():
            states = self.tower(tokens, attention_mask=mask.long(), output_hidden_states=True).hidden_states
            assert len(states) == oracle.LAYERS + 1
            return [f.numpy() for f in self.extractor(states, mask)]

    def ours(self, params: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        return jax.jit(lambda p, t, m: gemma.encode(p, t, m, self.config))(params, self.tokens, self.mask)


@pytest.fixture(scope="module", params=[1024, 32], ids=["window-holds-all", "window-slides"])
def case(request: pytest.FixtureRequest) -> Case:
    """The tiny encoder with a window beyond the prompts' length and with a shorter one."""
    return Case(request.param)


def relative(ours: jax.Array, reference: np.ndarray) -> float:
    """Largest difference over the largest value."""
    return float(np.abs(np.asarray(ours, np.float32) - reference).max() / np.abs(reference).max())


def test_table_names_the_official_weights_at_full_size() -> None:
    """Gemma-3-12B and the 22B projection have exactly the tensors of the table."""
    config = GemmaConfig()
    transformer = TransformerConfig.model_validate(oracle.transformer_section(**oracle.FULL_SIZES))
    with torch.device("meta"):
        tower = oracle.Gemma3TextModel(
            oracle.Gemma3TextConfig(
                vocab_size=262208,
                hidden_size=3840,
                intermediate_size=15360,
                num_hidden_layers=48,
                num_attention_heads=16,
                num_key_value_heads=8,
            )
        )
        extractor = oracle.extractor(transformer, 3840, 48)
    table = gemma.params(config, transformer)
    assert key_diff(table, oracle.text_state(tower, extractor)) == AGREES
    assert sum(len(spec.sources) for spec in table) == 626 + 4


def test_features_equal_the_official_ones(case: Case) -> None:
    """Prompts of several lengths in one batch give the official features, sliding window or not."""
    assert key_diff(case.table, case.state) == AGREES
    for ours, reference in zip(case.ours(load(case.table, case.state)), case.official(), strict=True):
        assert relative(ours, reference) <= 1e-5


def test_sliding_window_changes_the_features() -> None:
    """A window shorter than the prompt is not ignored by the comparison above."""
    wide, narrow = Case(1024), Case(32)
    assert relative(wide.ours(load(wide.table, wide.state))[0], narrow.official()[0]) > 1e-2


def test_written_out_layers_equal_scanned_ones(case: Case) -> None:
    """A sequence of layer trees gives what the stacked tree gives."""
    params = load(case.table, case.state)
    layers = [jax.tree.map(lambda leaf, i=i: leaf[i], params["blocks"]) for i in range(oracle.LAYERS)]
    scanned, written = case.ours(params), case.ours({**params, "blocks": layers})
    for one, other in zip(scanned, written, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_a_prompt_does_not_depend_on_its_batch(case: Case) -> None:
    """Alone or beside others, a prompt gets the same features."""
    params = load(case.table, case.state)
    together = case.ours(params)[0]
    alone = gemma.encode(params, case.tokens[2:], case.mask[2:], case.config)[0]
    np.testing.assert_allclose(together[2:], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("prompts", "short"), [([0, 2], 60), ([0, 1], 60), ([0, 2], 128), ([0, 2], 200)])
def test_short_prompts_have_a_way_of_their_own(case: Case, prompts: list[int], short: int) -> None:
    """Whether or not a batch fits into it, every slot has what the one way gives."""
    params = load(case.table, case.state)
    tokens, mask = case.tokens[prompts], case.mask[prompts]
    want = gemma.encode(params, tokens, mask, case.config)
    got = jax.jit(lambda p, t, m: gemma.encode(p, t, m, case.config, short=short))(params, tokens, mask)
    for ours, other in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, other, rtol=0, atol=1e-5)


def test_short_prompts_take_that_way(case: Case) -> None:
    """What lies in front of the short way's slots is not even read."""
    params = load(case.table, case.state)
    length = LENGTHS[2]
    tokens, mask = case.tokens[2:].copy(), case.mask[2:]
    tokens[:, :-length] = 1
    assert 1 not in tokens[:, -length:]
    params["embed_tokens"] = params["embed_tokens"].at[1].set(jnp.nan)
    assert np.isnan(gemma.encode(params, tokens, mask, case.config)[0]).any()
    for features_of_short in gemma.encode(params, tokens, mask, case.config, short=length):
        assert np.isfinite(features_of_short).all()


def test_bf16_stays_close_to_f32(case: Case) -> None:
    """The bf16 features of real tokens point where the f32 ones do."""
    f32, bf16 = (case.ours(load(case.table, case.state, dtype)) for dtype in (jnp.float32, jnp.bfloat16))
    for exact, rounded in zip(f32, bf16, strict=True):
        assert rounded.dtype == jnp.bfloat16
        a, b = (np.asarray(x, np.float32)[case.mask].ravel() for x in (exact, rounded))
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) >= 0.999


def test_embedding_factor_is_rounded_before_it_multiplies() -> None:
    """In bf16 a width of 3840 scales embeddings by 62, not by 61.97."""
    embeddings = jnp.ones((2, 3840), jnp.bfloat16)
    config = GemmaConfig(num_hidden_layers=1)
    assert float(gemma._embed(embeddings, jnp.zeros((1, 1), jnp.int32), config)[0, 0, 0]) == 62.0


def test_state_norm_rounds_after_every_operation() -> None:
    """The norm of a bf16 hidden state is the official one bit for bit."""
    state = torch.randn((1, 64, 48), generator=torch.Generator().manual_seed(0)).bfloat16() * 3
    want = norm_and_concat_per_token_rms(state[..., None], torch.ones(1, 64)).float().numpy()
    got = features._rms_norm_stepwise(jnp.asarray(state.float().numpy(), jnp.bfloat16))
    np.testing.assert_array_equal(np.asarray(got, np.float32), want)


@pytest.mark.parametrize(("index", "kind"), [(0, "full_attention"), (1, "sliding_attention")])
def test_rotation_rounds_after_every_operation(case: Case, index: int, kind: str) -> None:
    """Tables and rotation of bf16 heads are the official ones bit for bit, pads counted as positions."""
    heads = torch.randn((1, 2, SLOTS, 16), generator=torch.Generator().manual_seed(0)).bfloat16()
    cos, sin = case.tower.rotary_emb(heads, torch.arange(SLOTS)[None], kind)
    want = apply_rotary_pos_emb(heads, heads, cos, sin)[0].float().numpy()
    ours = jnp.asarray(heads.float().numpy(), jnp.bfloat16).transpose(0, 2, 1, 3)
    rope, _ = gemma._contexts(jnp.asarray(case.mask), 0, case.config, ours.dtype)[index]
    got = gemma._rotate(ours, rope).transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(np.asarray(got, np.float32), want)
