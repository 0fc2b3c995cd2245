"""The vocoder with bandwidth extension against the official one."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import Array
from loading import AGREES, key_diff, load, prefixed_state
from oracles import import_oracles, randomize, tiny_config

from ltxbuild.model import generator, vocoder
from ltxbuild.model.config import VocoderConfig
from ltxbuild.model.forms import Convolution
from ltxbuild.synthetic.shipped import shipped

import_oracles()
from ltx_core.model.audio_vae.model_configurator import VocoderConfigurator  # noqa: E402

FRAMES = 9
QUICKLY = {"xla_backend_optimization_level": 0}
"""Halves the time to compile; the signals are short."""


def _metadata() -> dict[str, Any]:
    """A small vocoder: 5 samples per frame, extended in hops of 10, so that the last hop must be filled."""
    section = tiny_config()["vocoder"]
    main = {**section["vocoder"], "upsample_rates": [5], "upsample_kernel_sizes": [11]}
    sizes = {"hop_length": 10, "n_fft": 64, "upsample_rates": [6, 5], "upsample_kernel_sizes": [12, 11]}
    return {"vocoder": {"vocoder": main, "bwe": {**section["bwe"], **sizes}}}


class Case:
    """An official vocoder and our compiled one, which takes any weights of that size."""

    def __init__(self) -> None:
        metadata = _metadata()
        self.config = VocoderConfig.model_validate(metadata["vocoder"])
        self.table = vocoder.params(self.config)
        self.module = randomize(VocoderConfigurator.from_config(metadata))
        self.jitted = jax.jit(
            lambda params, mel: vocoder.vocode(params, mel, self.config), compiler_options=QUICKLY
        )

    def params(self, module: torch.nn.Module) -> dict[str, Any]:
        return load(self.table, prefixed_state(module, "vocoder."))


@pytest.fixture(scope="module")
def case() -> Case:
    """Shared, because compiling takes seconds."""
    return Case()


def _mel(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 2, FRAMES, 64, generator=torch.Generator().manual_seed(seed))


def _one_by_one(params: Any) -> Any:
    """The parameters as a target without stacks gets them: every `blocks` a list of trees."""
    if not isinstance(params, dict):
        return params
    return {
        name: _unstacked(part) if name == "blocks" else _one_by_one(part) for name, part in params.items()
    }


def _unstacked(blocks: Any) -> list[Any]:
    count = len(jax.tree.leaves(blocks)[0])
    return [jax.tree.map(lambda leaf, i=index: leaf[i], blocks) for index in range(count)]


@pytest.mark.parametrize("name", ["ltx-2.3-22b", "ltx-2.3-tiny"])
def test_names_every_official_tensor(name: str) -> None:
    """At shipped sizes the table names the official tensors, no more and no less, all stored in f32."""
    metadata = shipped(name)["ltx"]
    with torch.device("meta"):
        module = VocoderConfigurator.from_config(metadata)
    table = vocoder.params(VocoderConfig.model_validate(metadata["vocoder"]))
    assert key_diff(table, prefixed_state(module, "vocoder.")) == AGREES
    assert {spec.storage for spec in table} == {"float32"}


def test_number_of_official_tensors() -> None:
    """The real vocoder has 1227 tensors."""
    config = VocoderConfig.model_validate(shipped("ltx-2.3-22b")["ltx"]["vocoder"])
    assert sum(len(spec.sources) for spec in vocoder.params(config)) == 1227


@pytest.mark.parametrize(("gain", "clamped"), [(1.0, (0.0, 0.0)), (20.0, (0.05, 0.5))])
def test_equals_the_official_vocoder(case: Case, gain: float, clamped: tuple[float, float]) -> None:
    """Waveforms agree to 1e-5 of the peak, with the first clamp idle and with it at work."""
    # ltx-core clamps what the extension reads; diffusers does so only with final_act_fn="clamp".
    module = copy.deepcopy(case.module)
    module.vocoder.conv_post.weight.mul_(gain)
    low, want = module.vocoder(_mel()), module(_mel())[0].numpy()
    got = np.asarray(case.jitted(case.params(module), jnp.asarray(_mel().numpy())))
    assert clamped[0] <= float((low.abs() == 1).float().mean()) <= clamped[1]
    assert got.shape == want.shape == (2, FRAMES * 5 * 3)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_bf16_mel_gives_a_waveform_rounded_to_bf16(case: Case) -> None:
    """With a bf16 spectrogram only the result is rounded: it is the f32 result's nearest bf16 number."""
    mel = jnp.asarray(_mel(1).numpy(), jnp.bfloat16)
    rough = case.jitted(case.params(case.module), mel)
    exact = case.jitted(case.params(case.module), mel.astype(jnp.float32))
    assert rough.dtype == exact.dtype == jnp.float32
    np.testing.assert_array_equal(rough, rough.astype(jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_allclose(rough, exact, rtol=2**-8, atol=1e-7)
    assert not np.array_equal(rough, exact)


def test_forms_agree() -> None:
    """Layers written out or in a loop, taps in a loop or not: the waveform is the same."""
    config = VocoderConfig.model_validate(_metadata()["vocoder"]).vocoder.model_copy(
        update={"upsample_initial_channel": 8, "upsample_rates": (2,), "upsample_kernel_sizes": (4,)}
    )
    table = generator.generator("official", config)
    rng = np.random.default_rng(0)
    state = {
        key: torch.from_numpy(rng.standard_normal(spec.source_shape).astype(np.float32) * 0.2)
        for spec in table
        for key in spec.sources
    }
    stacked = load(table, state)

    @partial(jax.jit, compiler_options=QUICKLY, static_argnums=2)
    def run(params: Any, mel: Array, form: Convolution) -> Array:
        return generator.generate(params, mel, config, form)

    mel = jnp.asarray(_mel()[0].numpy())
    want = run(stacked, mel, "taps")
    for layers, form in ((_one_by_one(stacked), "taps"), (stacked, "loop"), (_one_by_one(stacked), "loop")):
        np.testing.assert_allclose(run(layers, mel, form), want, rtol=1e-5, atol=1e-6)
