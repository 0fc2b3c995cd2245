"""The training loop of all components: Adam, a falling rate, averaged weights, going on after a stop."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jax import Array

from tools.train_demo.gradients import fast_gradients
from tools.train_demo.weights import FROZEN, Params

SAVE_EVERY, REPORT_EVERY = 100, 20
WARM_UP = 50
DECAY = 0.995
"""Of the moving average of the weights, which comes out; less at first, or the start would stay."""
Loss = Callable[[Params, Array], Array]


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        name: Of its files in the directory: `NAME.npz` (state) and `NAME.jsonl` (loss curve).
        directory: Where they are.
        steps: How many there are in all.
        rate: Highest learning rate.
    """

    name: str
    directory: Path
    steps: int
    rate: float


def train(run: Run, start: Params, loss: Loss) -> Params:
    """Train, or go on where an earlier call stopped; a finished run comes back at once.

    Randomness is a function of the step, so that a stopped run ends where one that was not stopped does.

    Args:
        run: What it is called and how long it takes.
        start: Parameters to start from.
        loss: Of parameters and a random key.

    Returns:
        The averaged parameters.
    """
    rate = optax.warmup_cosine_decay_schedule(0.0, run.rate, WARM_UP, run.steps, run.rate / 100)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99))
    path = run.directory / f"{run.name}.npz"
    state = (start, optimizer.init(start), start)
    first, state = _restore(path, state)
    advance = jax.jit(_advance(optimizer, loss))
    began, losses = time.monotonic(), []
    for step in range(first, run.steps):
        with fast_gradients():
            state, value = advance(state, jnp.asarray(step), jax.random.fold_in(jax.random.key(0), step))
        losses.append(value)
        if (step + 1) % REPORT_EVERY == 0:
            _report(run, step + 1, losses, (time.monotonic() - began) / (step + 1 - first))
            losses = []
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == run.steps:
            _save(path, step + 1, state)
    averaged: Params = state[2]
    return averaged


def _advance(optimizer: Any, loss: Loss) -> Callable[..., Any]:
    def advance(state: Any, step: Array, key: Array) -> Any:
        params, inner, averaged = state
        value, gradient = jax.value_and_grad(loss)(params, key)
        updates, inner = optimizer.update(_without_frozen(gradient), inner, params)
        params = optax.apply_updates(params, updates)
        decay = jnp.minimum(DECAY, (1 + step) / (10 + step))
        averaged = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, averaged, params)
        return (params, inner, averaged), value

    return advance


def _without_frozen(gradient: Params) -> Params:
    def kept(path: Any, leaf: Array) -> Array:
        name = ".".join(str(part.key) for part in path)
        return jnp.zeros_like(leaf) if FROZEN.search(name) else leaf

    kept_tree: Params = jax.tree_util.tree_map_with_path(kept, gradient)
    return kept_tree


def _report(run: Run, step: int, losses: list[Array], seconds: float) -> None:
    value = float(np.mean(jax.device_get(losses)))
    left = seconds * (run.steps - step) / 60
    print(
        f"{run.name}: {step}/{run.steps}  loss {value:.5f}  {seconds:.2f} s/step  {left:.0f} min left",
        file=sys.stderr,
        flush=True,
    )
    with (run.directory / f"{run.name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "loss": value}) + "\n")


def _save(path: Path, step: int, state: Any) -> None:
    leaves = {f"{i:04d}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, allow_pickle=False, step=np.asarray(step), **leaves)
    partial.replace(path)


def _restore(path: Path, state: Any) -> tuple[int, Any]:
    if not path.exists():
        return 0, state
    with np.load(path) as file:
        names = sorted(name for name in file.files if name.isdigit())
        leaves = [jnp.asarray(file[name]) for name in names]
        return int(file["step"]), jax.tree.unflatten(jax.tree.structure(state), leaves)
