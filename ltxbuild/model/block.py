"""One block of the audio-video transformer."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array

from ltxbuild.model import adaln, attention, axes, layers, rope
from ltxbuild.model.adaln import modulate
from ltxbuild.model.config import TransformerConfig
from ltxbuild.model.layers import AttentionKind, Params
from ltxbuild.model.params import EMBED, ParamSpec, ParamTable, linear, prefixed
from ltxbuild.model.positions import RopeTables

MAIN_ROWS, PROMPT_ROWS, CROSS_ROWS = 9, 2, 5
FEED_FORWARD_FACTOR = 4


class Conditions(NamedTuple):
    """What one modality is conditioned on in a step; the same for all blocks.

    Attributes:
        context: Text, `[B, S, D]`.
        main: `[B, N, 9, D]`, rows of `adaln_single`.
        prompt: `[B, 1, 2, D]`, rows that modulate the text.
        cross: `[B, N, 4, D]`, scales and shifts of the attention between audio and video.
        gate: `[B, 1, 1, D]`, gate of what comes from the other modality.
        level: Which of the N noise levels each token has, `[T]`, or None.
        visible: Which tokens others may attend to, `[T]` bool, or None for all.
        along: Logical axis of the modality's tokens, see `axes`; None where no layout splits them.
    """

    context: Array
    main: Array
    prompt: Array
    cross: Array
    gate: Array
    level: Array | None
    visible: Array | None
    along: str | None


class Perturbation(NamedTuple):
    """What single samples of a batch go without; None where no sample does.

    Attributes:
        video_self: Where video self-attention mixes nothing, `[blocks, B]` bool; `[B]` in one block.
        audio_self: The same for audio.
        isolated: Samples without exchange between audio and video, `[B]` bool.
    """

    video_self: Array | None = None
    audio_self: Array | None = None
    isolated: Array | None = None


WHOLE = Perturbation()
"""Nothing left out."""


class _Attend(Protocol):
    """The attention block with everything bound that is the same throughout."""

    def __call__(
        self,
        params: Params,
        x: Array,
        context: Array | None = None,
        *,
        rope_q: rope.Tables | None = None,
        rope_k: rope.Tables | None = None,
        visible: Array | None = None,
        bypass: Array | None = None,
        along_q: str | None,
        along_k: str | None = None,
    ) -> Array: ...


def table(key: str, config: TransformerConfig) -> ParamTable:
    """Parameters of the block at checkpoint key `key` (without the trailing dot)."""
    heads, video, audio = config.num_attention_heads, config.video_dim, config.audio_dim
    head_dim = config.audio_attention_head_dim
    to_video = attention.table(
        f"{key}.audio_to_video_attn", heads=heads, head_dim=head_dim, query_dim=video, context_dim=audio
    )
    to_audio = attention.table(
        f"{key}.video_to_audio_attn", heads=heads, head_dim=head_dim, query_dim=audio, context_dim=video
    )
    return (
        *prefixed("video", _modality(key, "video", "", heads, video)),
        *prefixed("audio", _modality(key, "audio", "audio_", heads, audio)),
        *prefixed("audio_to_video", to_video),
        *prefixed("video_to_audio", to_audio),
    )


def _modality(key: str, name: str, prefix: str, heads: int, dim: int) -> ParamTable:
    def attend(module: str) -> ParamTable:
        path = f"{key}.{prefix}{module}"
        return attention.table(path, heads=heads, head_dim=dim // heads, query_dim=dim, context_dim=dim)

    hidden = FEED_FORWARD_FACTOR * dim
    return (
        *prefixed("self_attn", attend("attn1")),
        *prefixed("text_attn", attend("attn2")),
        *linear("ff.up", f"{key}.{prefix}ff.net.0.proj", hidden, dim, ("mlp", EMBED)),
        *linear("ff.down", f"{key}.{prefix}ff.net.2", dim, hidden, (EMBED, "mlp")),
        _rows("main_rows", f"{key}.{prefix}scale_shift_table", MAIN_ROWS, dim),
        _rows("prompt_rows", f"{key}.{prefix}prompt_scale_shift_table", PROMPT_ROWS, dim),
        _rows("cross_rows", f"{key}.scale_shift_table_a2v_ca_{name}", CROSS_ROWS, dim),
    )


def _rows(name: str, key: str, rows: int, dim: int) -> ParamSpec:
    return ParamSpec(name, (rows, dim), (None, None), (key,))


def apply(
    params: Params,
    video: Array,
    audio: Array,
    given_video: Conditions,
    given_audio: Conditions,
    ropes: RopeTables,
    *,
    config: TransformerConfig,
    kind: AttentionKind,
    without: Perturbation = WHOLE,
) -> tuple[Array, Array]:
    """Self-attention and text in each modality, then exchange between them, then feed-forward in each.

    Args:
        params: Tree of `table`.
        video: `[B, T, D]`.
        audio: `[B, A, Da]`.
        given_video: Conditions of the video tokens.
        given_audio: Conditions of the audio tokens.
        ropes: Rotary tables.
        config: Sizes.
        kind: Implementation of the attention.
        without: What samples go without in this block.

    Returns:
        Video and audio tokens, shaped as they came.
    """
    eps, along = config.norm_eps, given_video.along
    params = axes.gather(params, table("", config), EMBED)
    attend = partial(attention.apply, heads=config.num_attention_heads, eps=eps, kind=kind)
    main_video = adaln.rows(params["video"]["main_rows"], given_video.main, given_video.level)
    main_audio = adaln.rows(params["audio"]["main_rows"], given_audio.main, given_audio.level)
    bypass_video, bypass_audio, isolated = without
    video = _self_and_text(
        params["video"], video, main_video, given_video, ropes.video, bypass_video, attend, eps
    )
    audio = _self_and_text(
        params["audio"], audio, main_audio, given_audio, ropes.audio, bypass_audio, attend, eps
    )
    to_video, to_audio = _exchange(params, video, audio, given_video, given_audio, ropes, attend, eps)
    video, audio = video + _kept(to_video, isolated), audio + _kept(to_audio, isolated)
    video = _feed_forward(params["video"], video, main_video, eps)
    audio = _feed_forward(params["audio"], audio, main_audio, eps)
    return axes.place(video, None, along, None), axes.place(audio, None, given_audio.along, None)


def _self_and_text(
    params: Params,
    x: Array,
    main: list[Array],
    given: Conditions,
    turn: rope.Tables,
    bypass: Array | None,
    attend: _Attend,
    eps: float,
) -> Array:
    shift, scale, gate, *_, text_shift, text_scale, text_gate = main
    normed = modulate(layers.rms_norm(x, eps=eps), scale, shift)
    mixed = attend(
        params["self_attn"], normed, rope_q=turn, visible=given.visible, bypass=bypass, along_q=given.along
    )
    x = x + mixed * gate
    prompt_shift, prompt_scale = adaln.rows(params["prompt_rows"], given.prompt, None)
    text = modulate(given.context, prompt_scale, prompt_shift)
    normed = modulate(layers.rms_norm(x, eps=eps), text_scale, text_shift)
    return x + attend(params["text_attn"], normed, text, along_q=given.along) * text_gate


def _exchange(
    params: Params,
    video: Array,
    audio: Array,
    given_video: Conditions,
    given_audio: Conditions,
    ropes: RopeTables,
    attend: _Attend,
    eps: float,
) -> tuple[Array, Array]:
    """What video takes from audio and audio from video, both from the tokens as they came in."""
    v, v_gate = _exchange_rows(params["video"]["cross_rows"], given_video)
    a, a_gate = _exchange_rows(params["audio"]["cross_rows"], given_audio)
    normed_video, normed_audio = layers.rms_norm(video, eps=eps), layers.rms_norm(audio, eps=eps)
    to_video = attend(
        params["audio_to_video"],
        modulate(normed_video, v[0], v[1]),
        modulate(normed_audio, a[0], a[1]),
        rope_q=ropes.cross_video,
        rope_k=ropes.cross_audio,
        along_q=given_video.along,
        along_k=given_audio.along,
    )
    to_audio = attend(
        params["video_to_audio"],
        modulate(normed_audio, a[2], a[3]),
        modulate(normed_video, v[2], v[3]),
        rope_q=ropes.cross_audio,
        rope_k=ropes.cross_video,
        visible=given_video.visible,
        along_q=given_audio.along,
        along_k=given_video.along,
    )
    return to_video * v_gate, to_audio * a_gate


def _kept(change: Array, isolated: Array | None) -> Array:
    """The change `[B, T, D]`, zero in isolated samples."""
    return change if isolated is None else jnp.where(isolated[:, None, None], 0, change)


def _exchange_rows(table: Array, given: Conditions) -> tuple[list[Array], Array]:
    """Scale and shift of audio-to-video, scale and shift of video-to-audio (scale first), and the gate."""
    (gate,) = adaln.rows(table[-1:], given.gate, None)
    return adaln.rows(table[:-1], given.cross, given.level), gate


def _feed_forward(params: Params, x: Array, main: list[Array], eps: float) -> Array:
    shift, scale, gate = main[3:6]
    return x + layers.feed_forward(params["ff"], modulate(layers.rms_norm(x, eps=eps), scale, shift)) * gate
