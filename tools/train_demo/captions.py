"""What a training step asks for: captions as tokens, and scenes and tunes that they fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from tools.train_demo import tokenizer, world
from tools.train_demo.data import SCENES, SEEN

WHOLE = 0.6
"""How often a caption names everything; else it names each thing or doesn't, by the toss of a coin."""
UNCONDITIONAL = 0.1
"""How often the caption is empty."""
PURE = 0.3
"""How many draws `mixed` leaves as they are for each that it mixes."""


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


class Mixture(NamedTuple):
    """Two draws that differ in nothing but colours, and how much there is of the second, `[G]`."""

    first: Drawn
    second: Drawn
    share: Array

    def of(self, values: Callable[[Drawn], Array]) -> Array:
        """What belongs to the mixture, where `values` gives `[G, ...]` for a draw."""
        first, second = values(self.first), values(self.second)
        return first + self.share.reshape(-1, *[1] * (first.ndim - 1)) * (second - first)


def tokens(path: Path, length: int) -> Captions:
    """Tokens of all captions."""
    texts = [*(world.caption(names) for names in world.all_names()), ""]
    return Captions(*(jnp.asarray(x) for x in tokenizer.token_ids(path, texts, length)))


def draw(key: Array, count: int, videos: int) -> Drawn:
    """Captions, and scenes and tunes that they fit."""
    keys = jax.random.split(key, 6)
    scenes = jnp.asarray(SCENES)
    seen = jnp.asarray(SEEN)
    # The first video of each caption says what is named; the others agree in that.
    model = scenes[jax.random.choice(keys[0], seen, (count,))]
    tune = jax.random.randint(keys[1], (count,), 0, len(world.TUNES))
    whole = jax.random.bernoulli(keys[5], WHOLE, (count, 1))
    named = whole | jax.random.bernoulli(keys[2], 0.5, (count, 4))
    empty = jax.random.bernoulli(keys[3], UNCONDITIONAL, (count,))
    named &= ~empty[:, None]
    fits = jnp.all((scenes[seen] == model[:, None]) | ~named[:, None, :3], axis=-1)
    odds = jnp.where(fits, 0.0, -jnp.inf)[:, None]
    scene = seen[jax.random.categorical(keys[4], odds, axis=-1, shape=(count, videos))]
    names = list(world.TUNES)
    follows = jnp.asarray([names.index(tune) for tune in world.FOLLOWS.values()])[scenes[scene][..., 2]]
    tunes = jnp.where(named[:, 3:], tune[:, None], follows)
    return Drawn(_caption_index(model, tune, named, empty), scene, tunes)


def mixed(key: Array, drawn: Drawn) -> Mixture:
    """Most draws with some of another colour in them, in the captions and in the videos.

    Frames are linear in the colour, and so are their codes. That a shape is the same in all colours, and in
    those between, is what keeps a model from learning scenes by heart.
    """
    pick, amount = jax.random.split(key)
    share = jax.nn.relu(jax.random.uniform(amount, drawn.caption.shape, minval=-PURE))
    return Mixture(drawn, _recoloured(pick, drawn), share)


def _recoloured(key: Array, drawn: Drawn) -> Drawn:
    """The same in another colour, where the caption names one and training has seen all its videos so."""
    colours, total = len(world.COLOURS), len(world.all_names())
    block, scenes = total // (colours + 1), len(SCENES) // colours
    colour = jax.random.randint(key, drawn.caption.shape, 0, colours)
    caption = drawn.caption % block + block * (colour + 1)
    scene = drawn.scene % scenes + scenes * colour[:, None]
    names_one = (drawn.caption >= block) & (drawn.caption < total)
    free = names_one & jnp.all(jnp.isin(scene, jnp.asarray(SEEN)), axis=1)
    return Drawn(
        jnp.where(free, caption, drawn.caption), jnp.where(free[:, None], scene, drawn.scene), drawn.tune
    )


def _caption_index(scene: Array, tune: Array, named: Array, empty: Array) -> Array:
    """Where the caption is in the order of `world.all_names()`."""
    values = jnp.where(named, jnp.concatenate([scene, tune[:, None]], axis=1) + 1, 0)
    sizes = [len(world.SHAPES) + 1, len(world.DIRECTIONS) + 1, len(world.TUNES) + 1]
    weights = jnp.asarray([np.prod(sizes[i:], dtype=int) for i in range(3)] + [1])
    return jnp.where(empty, len(world.all_names()), values @ weights)
