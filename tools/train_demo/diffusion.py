"""The text path and the transformer, by flow matching.

From a mixture of latent and noise the model learns to predict the noise less the latent. A step draws a few
captions, each with one noise level, and for each caption several videos. What depends on the caption alone -
the text encoder, keys and values of the text - is computed once per caption, because `vmap` leaves it out of
the loop over videos.

Text takes 1024 slots when videos are generated, and ten of them hold words. What the others hold, the
registers, drowns the words when it is random: for hundreds of steps nothing is learned from the text. Here
registers are zero and stay so. A free slot then holds what its attention collects from the words, so that
every slot says what the caption says, however many there are. So the first phase can train everything with
128 slots; the second computes all contexts once, in 1024 slots, and trains the transformer alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ltxbuild.components import ModelConfig
from ltxbuild.model import connector, gemma, transformer
from ltxbuild.model.adaln import Timesteps, uniform
from ltxbuild.model.positions import Geometry, rope_tables
from ltxbuild.model.schedule import DISTILLED_STAGE_1, DISTILLED_STAGE_2
from tools.train_demo import tokenizer, world
from tools.train_demo.data import SCENES, SEEN, Data
from tools.train_demo.loop import Run, train
from tools.train_demo.weights import Params, initial

SHORT, LONG = 128, 1024
"""Text slots of the phases."""
CAPTIONS, VIDEOS = (10, 3), (6, 4)
"""Captions per step and videos per caption, at the size of stage 1 and of stage 2."""
STEPS, RATE = (1200, 300), (2e-3, 5e-4)
NAMED = 0.85
"""How often a caption names each thing."""
UNCONDITIONAL = 0.1
"""How often the caption is empty."""
GIVEN = 0.25
"""How often the first frame is given."""
ON_SCHEDULE = 0.6
"""How often the noise level is one that the distilled schedule has."""
SCALES = {
    r"embed_tokens": 3.0,
    r"(main|prompt|cross|gate)\.rows": 0.1,
    r"main_rows|prompt_rows|cross_rows|head_rows": 0.0,
    r"attn\.to_out|audio_to_video\.to_out|video_to_audio\.to_out|ff\.down": 0.4,
    r"to_gate_logits": 0.1,
    r"registers": 0.0,
    r"proj_out": 0.3,
}
GATE_ROWS = {"main_rows": (2, 5, 8), "cross_rows": (4,)}
"""Rows of the tables that gate a branch: one to begin with."""

Contexts = tuple[Array, Array]
"""For each caption the text of the video tokens `[B, S, D]` and of the audio tokens `[B, S, Da]`."""


class Captions(NamedTuple):
    """All captions as tokens, in the order of `world.all_names()`, and the empty one last.

    Attributes:
        tokens: `[N, S]` int32.
        mask: `[N, S]` bool.
    """

    tokens: Array
    mask: Array


class Drawn(NamedTuple):
    """What a step works on, for G captions and n videos of each.

    Attributes:
        caption: Which caption, `[G]`.
        scene: Which scene, `[G, n]`.
        tune: Which tune, `[G, n]`.
    """

    caption: Array
    scene: Array
    tune: Array


def start(config: ModelConfig) -> Params:
    """Parameters before training, of the text encoder, the connectors and the transformer."""
    ltx = config.ltx.transformer
    params: Params = {
        "text_encoder": initial(gemma.params(config.gemma, ltx), 0, SCALES),
        "connectors": initial(connector.params(ltx), 0, SCALES),
        "transformer": initial(transformer.params(ltx), 0, SCALES),
    }
    for modality in ("video", "audio"):
        for name, rows in GATE_ROWS.items():
            params["transformer"]["blocks"][modality][name][:, rows] = 1.0
    return params


def captions(path: Path, length: int) -> Captions:
    """Tokens of all captions."""
    texts = [*(world.caption(names) for names in world.all_names()), ""]
    return Captions(*(jnp.asarray(x) for x in tokenizer.token_ids(path, texts, length)))


def fit(config: ModelConfig, data: Data, tokens: Path, directory: Path) -> Params:
    """Both phases."""
    short = captions(tokens, SHORT)

    def first(params: Params, key: Array) -> Array:
        def contexts(chosen: Array) -> Contexts:
            return encode(params, short.tokens[chosen], short.mask[chosen], config)

        return loss(params["transformer"], contexts, key, config, data)

    params = train(Run("diffusion_short", directory, STEPS[0], RATE[0]), start(config), first)
    video, audio = all_contexts(params, captions(tokens, LONG), config)

    def second(params: Params, key: Array) -> Array:
        return loss(params, lambda chosen: (video[chosen], audio[chosen]), key, config, data)

    params["transformer"] = train(
        Run("diffusion_long", directory, STEPS[1], RATE[1]), params["transformer"], second
    )
    return params


def encode(params: Params, tokens: Array, mask: Array, config: ModelConfig) -> Contexts:
    """Captions to what the transformer attends to."""
    features = gemma.encode(params["text_encoder"], tokens, mask, config.gemma)
    return connector.connect(params["connectors"], *features, mask, config.ltx.transformer)


def all_contexts(params: Params, all_captions: Captions, config: ModelConfig) -> Contexts:
    """Contexts of every caption, one after another."""
    one = jax.jit(lambda tokens, mask: encode(params, tokens[None], mask[None], config))
    pairs = [one(*caption) for caption in zip(*all_captions, strict=True)]
    video, audio = (jnp.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    return video, audio


def loss(
    params: Params, contexts: Callable[[Array], Contexts], key: Array, config: ModelConfig, data: Data
) -> Array:
    """Flow-matching loss over both sizes and both modalities."""
    small, large = jax.random.split(key)
    sizes = ((small, data.small, world.STAGE_1, False), (large, data.large, world.STAGE_2, True))
    drawn = [draw(k, CAPTIONS[i], VIDEOS[i]) for i, (k, *_) in enumerate(sizes)]
    chosen = jnp.concatenate([d.caption for d in drawn])
    video, audio = contexts(chosen)
    total = jnp.zeros(())
    for i, (k, latents, size, second) in enumerate(sizes):
        part = slice(0, CAPTIONS[0]) if i == 0 else slice(CAPTIONS[0], None)
        text = video[part], audio[part]
        total += _matching(params, text, drawn[i], k, config, (latents, data.sound), size, second) / 2
    return total


def draw(key: Array, count: int, videos: int) -> Drawn:
    """Captions, and scenes and tunes that they fit."""
    keys = jax.random.split(key, 6)
    scenes = jnp.asarray(SCENES)
    seen = jnp.asarray(SEEN)
    # The first video of each caption says what is named; the others agree in that.
    model = scenes[jax.random.choice(keys[0], seen, (count,))]
    tune = jax.random.randint(keys[1], (count,), 0, len(world.TUNES))
    named = jax.random.bernoulli(keys[2], NAMED, (count, 4))
    empty = jax.random.bernoulli(keys[3], UNCONDITIONAL, (count,))
    named &= ~empty[:, None]
    fits = jnp.all((scenes[seen] == model[:, None]) | ~named[:, None, :3], axis=-1)
    odds = jnp.where(fits, 0.0, -jnp.inf)[:, None]
    scene = seen[jax.random.categorical(keys[4], odds, axis=-1, shape=(count, videos))]
    names = list(world.TUNES)
    follows = jnp.asarray([names.index(tune) for tune in world.FOLLOWS.values()])[scenes[scene][..., 2]]
    tunes = jnp.where(named[:, 3:], tune[:, None], follows)
    return Drawn(_caption_index(model, tune, named, empty), scene, tunes)


def _caption_index(scene: Array, tune: Array, named: Array, empty: Array) -> Array:
    """Where the caption is in the order of `world.all_names()`."""
    values = jnp.where(named, jnp.concatenate([scene, tune[:, None]], axis=1) + 1, 0)
    sizes = [len(world.SHAPES) + 1, len(world.DIRECTIONS) + 1, len(world.TUNES) + 1]
    weights = jnp.asarray([np.prod(sizes[i:], dtype=int) for i in range(3)] + [1])
    return jnp.where(empty, len(world.all_names()), values @ weights)


def _sigmas(key: Array, count: int, second: bool) -> Array:
    """Noise levels `[count]`: often those of the distilled schedule, else anything."""
    which, level, free = jax.random.split(key, 3)
    schedule = jnp.asarray((DISTILLED_STAGE_2 if second else DISTILLED_STAGE_1)[:-1])
    on = jax.random.choice(level, schedule, (count,))
    return jnp.where(
        jax.random.bernoulli(which, ON_SCHEDULE, (count,)),
        on,
        jax.random.uniform(free, (count,), minval=0.1, maxval=1.0),
    )


def _matching(
    params: Params,
    text: Contexts,
    drawn: Drawn,
    key: Array,
    config: ModelConfig,
    latents: tuple[Array, Array],
    size: tuple[int, int],
    second: bool,
) -> Array:
    """Mean squared error of the velocities of both modalities, tokens of given frames left out."""
    keys = jax.random.split(jax.random.fold_in(key, 1), 6)
    groups = len(drawn.scene)
    clean_video = latents[0][
        drawn.scene, jax.random.randint(keys[0], drawn.scene.shape, 0, latents[0].shape[1])
    ]
    clean_audio = latents[1][
        drawn.tune, jax.random.randint(keys[1], drawn.tune.shape, 0, latents[1].shape[1])
    ]
    noise_video = jax.random.normal(keys[2], clean_video.shape)
    noise_audio = jax.random.normal(keys[3], clean_audio.shape)
    sigma = _sigmas(keys[4], groups, second)
    left = 1.0 - jax.random.bernoulli(keys[5], GIVEN, (groups,))
    geometry = Geometry(
        (world.FRAMES - 1) // 8 + 1, size[0] // 32, size[1] // 32, world.AUDIO_LATENTS, world.FPS
    )
    level = jnp.asarray(np.arange(geometry.tokens) < geometry.cells, jnp.int32)
    times = Timesteps(sigma, jnp.stack([sigma, sigma * left], axis=1), level)
    ropes = rope_tables(config.ltx.transformer, geometry, jnp.float32)

    def one(video: Array, audio: Array) -> tuple[Array, Array]:
        return transformer.velocity(
            params, video, audio, *text, times, uniform(sigma), ropes, config=config.ltx.transformer
        )

    share = times.per_token[:, None]
    amount = sigma[:, None, None, None]
    noisy = (
        clean_video + share * (noise_video - clean_video),
        clean_audio + amount * (noise_audio - clean_audio),
    )
    video, audio = jax.vmap(one, in_axes=1, out_axes=1)(*noisy)
    free = jnp.where(share > 0, 1.0, 0.0)
    error_video = jnp.square(video - (noise_video - clean_video)) * free
    error_audio = jnp.square(audio - (noise_audio - clean_audio))
    return jnp.mean(error_video) / jnp.mean(free) + 0.5 * jnp.mean(error_audio)
