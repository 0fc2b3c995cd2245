"""The spectrogram and the resampler of the bandwidth extension against the official ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from loading import AGREES, key_diff, load, prefixed_state
from oracles import import_oracles

from ltxbuild.model import bandwidth
from ltxbuild.model.config import BandwidthConfig
from ltxbuild.synthetic.filters import mel_filterbank, stft_basis

import_oracles()
from ltx_core.model.audio_vae.vocoder import MelSTFT, UpSample1d  # noqa: E402


def _config(window: int, hop: int) -> BandwidthConfig:
    return BandwidthConfig(
        upsample_initial_channel=2,
        upsample_rates=(),
        upsample_kernel_sizes=(),
        resblock="AMP1",
        stereo=True,
        activation="snakebeta",
        input_sampling_rate=16000,
        output_sampling_rate=48000,
        hop_length=hop,
        n_fft=window,
        num_mels=6,
    )


def _waveform(samples: int) -> torch.Tensor:
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(samples))


@pytest.mark.parametrize(("window", "hop"), [(64, 10), (64, 16), (8, 8)])
def test_spectrogram_equals_the_official_one(window: int, hop: int) -> None:
    """Log-mel frames agree, whether or not the hop divides the window; silence gives the floor."""
    module = MelSTFT(window, hop, window, 6)
    module.mel_basis.copy_(torch.from_numpy(mel_filterbank(6, window // 2 + 1)))
    module.stft_fn.forward_basis.copy_(torch.from_numpy(stft_basis(window)))
    config = _config(window, hop)
    table = bandwidth.spectrogram("official", config)
    state = prefixed_state(module, "official.")
    assert key_diff(table, state) == AGREES
    waveform = _waveform(9 * hop)
    waveform[1] = 0
    want = module.mel_spectrogram(waveform)[0].mT.numpy()
    got = bandwidth.log_mel(load(table, state), jnp.asarray(waveform.numpy()), config)
    np.testing.assert_allclose(got, want, atol=2e-5)
    np.testing.assert_allclose(got[1], np.log(1e-5), rtol=1e-6)


@pytest.mark.parametrize("ratio", [2, 3])
def test_resampler_equals_the_official_one(ratio: int) -> None:
    """The sinc resampler agrees over the whole signal, its repeated ends included."""
    waveform = _waveform(20)
    want = UpSample1d(ratio=ratio, window_type="hann")(waveform[None])[0].numpy()
    got = jax.jit(bandwidth.resample, static_argnums=1)(jnp.asarray(waveform.numpy()), ratio)
    np.testing.assert_allclose(got, want, atol=2e-6)
