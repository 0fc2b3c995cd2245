"""The audio VAE's decoder against the official one, and the parameter tables of both sides."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from loading import AGREES, key_diff, load
from numpy.typing import DTypeLike
from oracles import import_oracles, randomize, tiny_config

from ltxbuild.model import audio_decoder, audio_encoder
from ltxbuild.model.config import AudioVaeConfig
from ltxbuild.synthetic.shipped import shipped

import_oracles()
from ltx_core.model.audio_vae.model_configurator import (  # noqa: E402
    AudioDecoderConfigurator,
    AudioEncoderConfigurator,
)

SIZES = [((1, 2, 4), 2), ((1, 1, 1), 1), ((1, 2), 1)]
FRAMES, BINS, Z_CHANNELS = 5, 8, 4


def _metadata(ch_mult: tuple[int, ...], num_res_blocks: int) -> dict[str, Any]:
    metadata = tiny_config()
    metadata["audio_vae"]["model"]["params"]["ddconfig"].update(
        ch=Z_CHANNELS * BINS,
        z_channels=Z_CHANNELS,
        ch_mult=list(ch_mult),
        num_res_blocks=num_res_blocks,
        mel_bins=4 * BINS,
    )
    return metadata


def _state(module: torch.nn.Module, side: str) -> dict[str, torch.Tensor]:
    """The module's weights under their official keys."""
    state = module.state_dict()
    return {f"audio_vae.{'' if 'per_channel' in k else side + '.'}{k}": v for k, v in state.items()}


class Case:
    """A tiny official decoder and the same weights in ours."""

    def __init__(self, ch_mult: tuple[int, ...], num_res_blocks: int) -> None:
        metadata = _metadata(ch_mult, num_res_blocks)
        self.config = AudioVaeConfig.model_validate(metadata["audio_vae"])
        self.module = randomize(AudioDecoderConfigurator.from_config(metadata))
        self.state = _state(self.module, "decoder")
        self.jitted = jax.jit(
            lambda params, x: audio_decoder.decode(params, x, self.config),
            compiler_options={"xla_allow_excess_precision": False},
        )

    def decode(self, latent: torch.Tensor, dtype: DTypeLike = jnp.float32) -> np.ndarray[Any, Any]:
        params = load(audio_decoder.params(self.config), self.state, dtype)
        return np.asarray(self.jitted(params, jnp.asarray(latent.numpy(), dtype)))


@pytest.fixture(scope="module")
def case() -> Case:
    """Real structure, tiny width."""
    return Case(*SIZES[0])


def _latent() -> torch.Tensor:
    return torch.randn(1, Z_CHANNELS, FRAMES, BINS, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["ltx-2.3-22b", "ltx-2.3-tiny"])
def test_decoder_names_every_official_tensor(name: str) -> None:
    """At shipped sizes the decoder's table names the official tensors, no more and no less."""
    metadata = shipped(name)["ltx"]
    with torch.device("meta"):
        module = AudioDecoderConfigurator.from_config(metadata)
    table = audio_decoder.params(AudioVaeConfig.model_validate(metadata["audio_vae"]))
    assert key_diff(table, _state(module, "decoder")) == AGREES


@pytest.mark.parametrize("name", ["ltx-2.3-22b", "ltx-2.3-tiny"])
def test_encoder_names_every_official_tensor(name: str) -> None:
    """At shipped sizes the encoder's table names the official tensors but for the shared statistics."""
    metadata = shipped(name)["ltx"]
    with torch.device("meta"):
        module = AudioEncoderConfigurator.from_config(metadata)
    table = audio_encoder.params(AudioVaeConfig.model_validate(metadata["audio_vae"]))
    diff = key_diff(table, _state(module, "encoder"))
    statistics = [f"audio_vae.per_channel_statistics.{name}-of-means" for name in ("mean", "std")]
    assert diff == AGREES._replace(extra=statistics)


@pytest.mark.parametrize(("table", "count"), [(audio_decoder.params, 58), (audio_encoder.params, 44)])
def test_number_of_official_tensors(table: Any, count: int) -> None:
    """The real file has 56 decoder tensors, 2 statistics and 44 encoder tensors."""
    config = AudioVaeConfig.model_validate(shipped("ltx-2.3-22b")["ltx"]["audio_vae"])
    assert sum(len(spec.sources) for spec in table(config)) == count


@pytest.mark.parametrize("sizes", SIZES)
def test_equals_the_official_decoder(sizes: tuple[tuple[int, ...], int]) -> None:
    """Spectrograms agree to 1e-5 of the peak; with two levels only, the missing part is filled with zeros."""
    case = Case(*sizes)
    want = case.module(_latent()).numpy()
    got = case.decode(_latent())
    assert got.shape == want.shape == (1, 2, 4 * FRAMES - 3, 4 * BINS)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_bf16_stays_close_to_f32(case: Case) -> None:
    """The bf16 spectrogram points where the f32 one does."""
    exact = case.decode(_latent()).ravel()
    rough = case.decode(_latent(), jnp.bfloat16)
    assert rough.dtype == jnp.bfloat16
    values = rough.astype(np.float32).ravel()
    assert exact @ values >= 0.999 * np.linalg.norm(exact) * np.linalg.norm(values)


def test_later_latents_leave_earlier_sound_alone(case: Case) -> None:
    """The decoder is causal: another last latent changes its own four mel frames and no earlier one."""
    latent = _latent()
    before = case.decode(latent)
    latent[:, :, -1] += 1
    after = case.decode(latent)
    np.testing.assert_array_equal(before[:, :, :-4], after[:, :, :-4])
    assert not np.array_equal(before[:, :, -4:], after[:, :, -4:])
