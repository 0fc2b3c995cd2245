"""A waveform generator (BigVGAN): transposed convolutions, each followed by three residual blocks.

The residual blocks of a stage read the same signal and differ in kernel size alone. Their activations run as
one on `[kernels, T, C]`, which divides the size of the program, and the time to compile it, by three.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ltxbuild.model.antialias import activate, activation
from ltxbuild.model.config import GeneratorConfig
from ltxbuild.model.conv1d import bias1d, conv1d, convolve1d, transpose_convolve1d, transposed1d
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
    """The residual blocks of one stage: a stack of activations and biases, and the kernels one by one.

    Both are in the order of rounds, halves of a round, kernel sizes.
    """
    kernels = config.resblock_kernel_sizes
    acts: list[ParamTable] = []
    convs: ParamTable = ()
    for step, half, kernel in product(range(_rounds(config)), (1, 2), range(len(kernels))):
        key = f"{prefix}.resblocks.{stage * len(kernels) + kernel}"
        conv = f"{key}.convs{half}.{step}"
        acts.append(
            (*activation("blocks", f"{key}.acts{half}.{step}", channels), bias1d("blocks", conv, channels))
        )
        name = f"convs.{len(acts) - 1}"
        convs += conv1d(name, conv, channels, channels, kernels[kernel], bias=False)
    return stack(acts) + convs


def _rounds(config: GeneratorConfig) -> int:
    return len(config.resblock_dilation_sizes[0])


def generate(params: Params, mel: Array, config: GeneratorConfig) -> Array:
    """Turn a spectrogram into a waveform; no final clamp.

    Args:
        params: Tree of `generator`'s table.
        mel: `[2, T, 64]` f32, both channels of a stereo signal.
        config: Sizes.

    Returns:
        `[2, T * product of upsample_rates]` f32.
    """
    x = jnp.moveaxis(mel, 0, 1).reshape(mel.shape[1], -1)
    x = convolve1d(params["conv_pre"]["weight"], x) + params["conv_pre"]["bias"]
    for stage, rate in enumerate(config.upsample_rates):
        layer = params["stages"][str(stage)]
        x = _residual_blocks(layer, transpose_convolve1d(layer["up"], x, rate), config)
    final = {name: value[None] for name, value in params["act_post"].items()}
    x = activate(final, x[None])[0]
    return convolve1d(params["conv_post"]["weight"], x).T


def _residual_blocks(params: Params, x: Array, config: GeneratorConfig) -> Array:
    """Mean of the residual blocks of a stage, `[T, C]` to `[T, C]`."""
    kernels = len(config.resblock_kernel_sizes)
    acts = _stacked(params["blocks"])
    signals = jnp.broadcast_to(x, (kernels, *x.shape))
    for step in range(_rounds(config)):
        dilations = [sizes[step] for sizes in config.resblock_dilation_sizes]
        branch = _activate_convolve(params["convs"], acts, 2 * step, signals, dilations)
        signals = signals + _activate_convolve(params["convs"], acts, 2 * step + 1, branch, [1] * kernels)
    return jnp.mean(signals, axis=0)


def _activate_convolve(
    convs: Params, acts: Params, index: int, signals: Array, dilations: list[int]
) -> Array:
    """Activation and convolution number `index` of every residual block, on `[kernels, T, C]`."""
    first = index * len(dilations)
    act = {name: value[first : first + len(dilations)] for name, value in acts.items()}
    active = activate(act, signals)
    weights = [convs[str(first + kernel)]["weight"] for kernel in range(len(dilations))]
    out = [convolve1d(w, x, d) for w, x, d in zip(weights, active, dilations, strict=True)]
    bias: Array = act["bias"][:, None]
    return jnp.stack(out) + bias


def _stacked(blocks: Params | list[Params]) -> Params:
    """The activations' parameters on a leading axis; a target may hand them over one by one."""
    if isinstance(blocks, Mapping):
        return blocks
    stacked: Params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    return stacked
