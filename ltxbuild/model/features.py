"""Text features: one linear map per modality over all hidden states of the text tower.

The states would be `layers + 1` times the size of one; instead each is normalised, scaled and projected when
it appears, and only the f32 sums are kept.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ltxbuild.model.config import GemmaConfig, TransformerConfig
from ltxbuild.model.layers import Params
from ltxbuild.model.params import Layout, ParamSpec, ParamTable, vector

STATE_NORM_EPS = 1e-6

Sums = dict[str, Array]
"""Per modality the running sum `[B, S, width]` in f32."""


def params(gemma: GemmaConfig, transformer: TransformerConfig) -> ParamTable:
    """Parameters of both maps (single file), weights as `[state, out, in]`."""
    widths = (("video", transformer.video_dim), ("audio", transformer.audio_dim))
    return tuple(spec for name, width in widths for spec in _map_params(name, gemma, width))


def _map_params(modality: str, gemma: GemmaConfig, width: int) -> ParamTable:
    key = f"text_embedding_projection.{modality}_aggregate_embed"
    states, hidden = gemma.num_hidden_layers + 1, gemma.hidden_size
    # In the checkpoint's input axis the state runs fastest.
    layout = Layout((width, hidden * states), (width, hidden, states), (2, 0, 1))
    # A tenth of the encoder's arithmetic is here: the output is split over devices like a feed-forward's.
    axes = (None, "mlp", None)
    weight = ParamSpec(f"{modality}.weight", (states, width, hidden), axes, (f"{key}.weight",), layout)
    return weight, *vector(f"{modality}.bias", f"{key}.bias", width, "mlp")


def start(params: Params, batch: int, length: int) -> Sums:
    """Sums before the first state, for `batch` prompts of `length` slots."""
    return {
        name: jnp.zeros((batch, length, *leaf["bias"].shape), jnp.float32) for name, leaf in params.items()
    }


def add_state(params: Params, sums: Sums, state: Array, index: int | Array, mask: Array) -> Sums:
    """Add the share of one hidden state.

    Args:
        params: Tree of `params`.
        sums: Sums so far.
        state: The hidden state `[B, S, hidden]`.
        index: Which state it is; 0 is the embedding.
        mask: `[B, S]`, True for real tokens; a pad contributes nothing.

    Returns:
        The new sums.
    """
    normed = jnp.where(mask[..., None], _rms_norm_stepwise(state), 0)
    return {name: sums[name] + _project(leaf["weight"][index], normed) for name, leaf in params.items()}


def finish(params: Params, sums: Sums, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Add the biases and round once.

    Args:
        params: Tree of `params`.
        sums: Sums over all states.
        dtype: Dtype of the features.

    Returns:
        Video features `[B, S, video_dim]` and audio features `[B, S, audio_dim]`.
    """
    video, audio = (
        (sums[name] + params[name]["bias"].astype(jnp.float32)).astype(dtype) for name in ("video", "audio")
    )
    return video, audio


def _project(weight: Array, normed: Array) -> Array:
    width, hidden = weight.shape
    # As f32, because a python factor would be rounded to the dtype before it multiplies.
    factor = np.float32(math.sqrt(width / hidden))
    scaled = (normed.astype(jnp.float32) * factor).astype(normed.dtype)
    return jnp.einsum("bsi,oi->bso", scaled, weight, preferred_element_type=jnp.float32)


def _rms_norm_stepwise(x: Array) -> Array:
    """`x / rms(x)` over the last axis, rounded after every operation: unlike the tower's norms."""
    square = (x * x).astype(jnp.float32)
    mean = jnp.mean(square, axis=-1, keepdims=True).astype(x.dtype).astype(jnp.float32)
    shifted = (mean + np.float32(STATE_NORM_EPS)).astype(x.dtype).astype(jnp.float32)
    return x * lax.rsqrt(shifted).astype(x.dtype)
