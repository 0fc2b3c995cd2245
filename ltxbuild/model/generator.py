"""A waveform generator (BigVGAN): transposed convolutions, each followed by three residual blocks.

The residual blocks of a stage read the same signal and differ in kernel size alone. Their activations run as
one on `[kernels, T, C]`, which divides the size of the program, and the time to compile it, by three.

The form of the parameters chooses the form of the program: given one by one, the layers are written out,
stacked, they run in a loop. That is a fifth of the program to compile and to load, and on a CPU as fast.
There may be a loop over the taps within: the TPU compiler spends 5 to 50 seconds on every f32 convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ltxbuild.model.antialias import activate, activation
from ltxbuild.model.config import GeneratorConfig
from ltxbuild.model.conv1d import (
    bias1d,
    conv1d,
    convolve1d,
    convolve1d_of,
    transpose_convolve1d,
    transposed1d,
)
from ltxbuild.model.forms import Convolution
from ltxbuild.model.params import ParamTable, prefixed, stack

Params = Mapping[str, Any]

MEL_BINS = 64
STEREO = 2


def generator(prefix: str, config: GeneratorConfig) -> ParamTable:
    """Specs of a generator whose checkpoint keys start with `prefix.`."""
    channels = config.upsample_initial_channel
    table = conv1d("conv_pre", f"{prefix}.conv_pre", channels, STEREO * MEL_BINS, 7)
    for stage, taps in enumerate(config.upsample_kernel_sizes):
        table += transposed1d(f"stages.{stage}.up", f"{prefix}.ups.{stage}", channels // 2, channels, taps)
        channels //= 2
        table += prefixed(f"stages.{stage}", _residual(prefix, stage, channels, config))
    table += activation("act_post", f"{prefix}.act_post", channels)
    return table + conv1d("conv_post", f"{prefix}.conv_post", STEREO, channels, 7, bias=False)


def _residual(prefix: str, stage: int, channels: int, config: GeneratorConfig) -> ParamTable:
    """The residual blocks of one stage, in half rounds: an activation and a convolution for each kernel size.

    `blocks` stacks the activations and biases, kernel size by kernel size within each half round;
    `kernels.K.blocks` stacks the kernels of one size.
    """
    sizes = config.resblock_kernel_sizes
    activations: list[ParamTable] = []
    kernels: list[list[ParamTable]] = [[] for _ in sizes]
    for step, half, index in product(range(_rounds(config)), (1, 2), range(len(sizes))):
        key = f"{prefix}.resblocks.{stage * len(sizes) + index}"
        act, conv = f"{key}.acts{half}.{step}", f"{key}.convs{half}.{step}"
        activations.append((*activation("blocks", act, channels), bias1d("blocks", conv, channels)))
        kernels[index].append(
            conv1d(f"kernels.{index}.blocks", conv, channels, channels, sizes[index], bias=False)
        )
    return stack(activations) + tuple(spec for layers in kernels for spec in stack(layers))


def _rounds(config: GeneratorConfig) -> int:
    return len(config.resblock_dilation_sizes[0])


def generate(params: Params, mel: Array, config: GeneratorConfig, form: Convolution = "taps") -> Array:
    """Turn a spectrogram into a waveform; no final clamp.

    Args:
        params: Tree of `generator`'s table.
        mel: `[2, T, 64]` f32, both channels of a stereo signal.
        config: Sizes.
        form: Of the convolutions, see `conv1d.convolve1d`.

    Returns:
        `[2, T * product of upsample_rates]` f32.
    """
    x = jnp.moveaxis(mel, 0, 1).reshape(mel.shape[1], -1)
    x = convolve1d(params["conv_pre"]["weight"], x, form=form) + params["conv_pre"]["bias"]
    for stage, rate in enumerate(config.upsample_rates):
        layer = params["stages"][str(stage)]
        x = _residual_blocks(layer, transpose_convolve1d(layer["up"], x, rate), config, form)
    final = {name: value[None] for name, value in params["act_post"].items()}
    x = activate(final, x[None])[0]
    return convolve1d(params["conv_post"]["weight"], x, form=form).T


def _residual_blocks(params: Params, x: Array, config: GeneratorConfig, form: Convolution) -> Array:
    """Mean of the residual blocks of a stage, `[T, C]` to `[T, C]`."""
    kernels = [params["kernels"][str(i)]["blocks"] for i in range(len(config.resblock_kernel_sizes))]
    signals = jnp.broadcast_to(x, (len(kernels), *x.shape))
    run = _run_in_loop if isinstance(params["blocks"], Mapping) else _run_written_out
    return jnp.mean(run(params["blocks"], kernels, signals, _dilations(config), form), axis=0)


def _dilations(config: GeneratorConfig) -> list[list[int]]:
    """Dilation of each half round and kernel size; the second half of a round has none."""
    rounds = zip(*config.resblock_dilation_sizes, strict=True)
    return [half for sizes in rounds for half in (list(sizes), [1] * len(sizes))]


def _run_written_out(
    activations: list[Params],
    kernels: list[list[Params]],
    signals: Array,
    dilations: list[list[int]],
    form: Convolution,
) -> Array:
    """All half rounds one after another, `[kernels, T, C]`, from parameters given one by one."""
    count, current = len(kernels), signals
    for index, distances in enumerate(dilations):
        layer = activations[index * count : (index + 1) * count]
        act: Params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layer)
        active = activate(act, current)
        weights = [blocks[index]["weight"] for blocks in kernels]
        out = [convolve1d(w, x, d, form) for w, x, d in zip(weights, active, distances, strict=True)]
        current = jnp.stack(out) + act["bias"][:, None]
        if index % 2:
            signals = current = signals + current
    return signals


def _run_in_loop(
    activations: Params,
    kernels: list[Params],
    signals: Array,
    dilations: list[list[int]],
    form: Convolution,
) -> Array:
    """The same in a loop over half rounds, from stacked parameters."""
    halves, distinct = len(dilations), [sorted(set(kernel)) for kernel in zip(*dilations, strict=True)]
    choices = [[d.index(x) for d, x in zip(distinct, half, strict=True)] for half in dilations]
    acts = jax.tree.map(lambda leaf: leaf.reshape(halves, len(kernels), -1), activations)
    weights = [blocks["weight"] for blocks in kernels]

    def half_round(carry: tuple[Array, Array], layer: Any) -> tuple[tuple[Array, Array], None]:
        signals, current = carry
        act, weights, choice, ends_round = layer
        each = zip(weights, activate(act, current), distinct, choice, strict=True)
        out = [convolve1d_of(*one, form) for one in each]
        current = jnp.stack(out) + act["bias"][:, None]
        signals = jnp.where(ends_round, signals + current, signals)
        return (signals, jnp.where(ends_round, signals, current)), None

    layers = (acts, weights, jnp.array(choices), jnp.arange(halves) % 2 == 1)
    return lax.scan(half_round, (signals, signals), layers)[0][0]
