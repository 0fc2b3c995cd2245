"""The text path, from tokens to what the transformer attends to.

A big model's text tower comes trained on text. This one learns by itself what the captions say, before there
is a video: one place of a context stands for each thing that can be named, and the last slot learns to have
its mark there. What a caption leaves out has a place too.

Text takes 1024 slots when videos are generated, and ten of them hold words. The others hold registers, and
drown the words when those are random. Here registers are zero, and so are the biases of the connectors'
attention: a free slot then holds what its attention collects from the words, whatever its place, and all of
them say the same, however many there are. So training needs few.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ltxbuild.components import ModelConfig
from ltxbuild.model import connector, gemma
from tools.train_demo import captions, world
from tools.train_demo.captions import Captions
from tools.train_demo.loop import Run, train
from tools.train_demo.weights import Params, initial

SHORT, LONG = 32, 1024
"""Text slots in training, and when videos are generated."""
BATCH, STEPS, RATE = 24, 300, 2e-3
SCALES = {r"embed_tokens": 3.0, r"to_gate_logits": 0.1, r"registers": 0.0}

Contexts = tuple[Array, Array]
"""For each caption the text of the video tokens `[B, S, D]` and of the audio tokens `[B, S, Da]`."""


def start(config: ModelConfig) -> Params:
    """Text encoder and connectors before training."""
    ltx = config.ltx.transformer
    return {
        "text_encoder": initial(gemma.params(config.gemma, ltx), 0, SCALES),
        "connectors": initial(connector.params(ltx), 0, SCALES),
    }


def fit(config: ModelConfig, tokens: Path, directory: Path) -> Params:
    """Train both."""
    short = captions.tokens(tokens, SHORT)
    wanted = tuple(jnp.asarray(marks(width)) for width in _widths(config))

    def loss(params: Params, key: Array) -> Array:
        chosen = captions.draw(key, BATCH, 1).caption
        found = encode(params, Captions(*(x[chosen] for x in short)), config)
        errors = [
            jnp.mean((text[:, -1] - marks[chosen]) ** 2) for text, marks in zip(found, wanted, strict=True)
        ]
        return sum(errors, jnp.zeros(()))

    return train(Run("text", directory, STEPS, RATE), start(config), loss)


def marks(width: int) -> np.ndarray:
    """What the context of each caption shall be, `[N, width]`: four marks, its mean square one."""
    sizes = [len(values) + 1 for values in (world.COLOURS, world.SHAPES, world.DIRECTIONS, world.TUNES)]
    first = np.cumsum([0, *sizes[:-1]])
    rows = np.zeros((len(world.all_names()) + 1, width), np.float32)
    for row, names in zip(rows, [*world.all_names(), world.Names()], strict=True):
        row[first + [0 if name is None else name + 1 for name in names]] = np.sqrt(width / len(names))
    return rows


def _widths(config: ModelConfig) -> tuple[int, int]:
    return config.ltx.transformer.video_dim, config.ltx.transformer.audio_dim


def encode(params: Params, texts: Captions, config: ModelConfig) -> Contexts:
    """Captions to what the transformer attends to."""
    features = gemma.encode(params["text_encoder"], *texts, config.gemma)
    return connector.connect(params["connectors"], *features, texts.mask, config.ltx.transformer)


def contexts(params: Params, tokens: Path, config: ModelConfig, every: int) -> Contexts:
    """Contexts of all captions, in as many slots as when videos are generated: every so many of them."""
    one = jax.jit(
        lambda *caption: [text[0, every - 1 :: every] for text in encode(params, Captions(*caption), config)]
    )
    pairs = [one(token[None], mask[None]) for token, mask in zip(*captions.tokens(tokens, LONG), strict=True)]
    video, audio = (jnp.stack([pair[i] for pair in pairs]) for i in (0, 1))
    return video, audio
