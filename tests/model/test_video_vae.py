"""The video VAE against the official encoder and decoder."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from loading import AGREES, key_diff, load
from oracles import import_oracles, randomize, tiny_config

from ltxbuild.model import video_decoder, video_encoder, video_vae, winograd
from ltxbuild.model.config import VideoVaeConfig

import_oracles()
from ltx_core.model.common.normalization import PixelNorm  # noqa: E402
from ltx_core.model.video_vae import VideoDecoderConfigurator, VideoEncoderConfigurator  # noqa: E402

STRICT = {"xla_allow_excess_precision": False, "xla_backend_optimization_level": 0}
"""Rounding as in real builds; the code is optimised less, for compiling is what takes the time here."""

REAL_ENCODER = [
    ["res_x", {"num_layers": 4}],
    ["compress_space_res", {"multiplier": 2}],
    ["res_x", {"num_layers": 6}],
    ["compress_time_res", {"multiplier": 2}],
    ["res_x", {"num_layers": 4}],
    ["compress_all_res", {"multiplier": 2}],
    ["res_x", {"num_layers": 2}],
    ["compress_all_res", {"multiplier": 1}],
    ["res_x", {"num_layers": 2}],
]
REAL_DECODER = [
    ["res_x", {"num_layers": 4}],
    ["compress_space", {"multiplier": 2}],
    ["res_x", {"num_layers": 6}],
    ["compress_time", {"multiplier": 2}],
    ["res_x", {"num_layers": 4}],
    ["compress_all", {"multiplier": 1}],
    ["res_x", {"num_layers": 2}],
    ["compress_all", {"multiplier": 2}],
    ["res_x", {"num_layers": 2}],
]


def _shallow(blocks: list[Any]) -> list[Any]:
    """The same stages with at most two residual layers each."""
    return [[kind, {k: min(v, 2) for k, v in options.items()}] for kind, options in blocks]


def _section(**changes: Any) -> dict[str, Any]:
    """A `vae` section with the real stages and widths in proportion: 16 latent channels, base 8."""
    return {
        **tiny_config()["vae"],
        "latent_channels": 16,
        "decoder_base_channels": 8,
        "encoder_blocks": _shallow(REAL_ENCODER),
        "decoder_blocks": _shallow(REAL_DECODER),
        **changes,
    }


def _real() -> dict[str, Any]:
    return _section(
        latent_channels=128,
        decoder_base_channels=128,
        encoder_blocks=REAL_ENCODER,
        decoder_blocks=REAL_DECODER,
    )


def _state(module: torch.nn.Module, side: str) -> dict[str, torch.Tensor]:
    """The module's weights under their official keys."""
    state = module.state_dict()
    return {f"vae.{'' if 'per_channel' in key else side + '.'}{key}": value for key, value in state.items()}


def _compiled(function: Any, config: VideoVaeConfig, params: Any, x: Any, form: Any = "taps") -> Any:
    run = jax.jit(lambda params, x: function(params, x, config, form))
    return np.asarray(run.lower(params, x).compile(compiler_options=STRICT)(params, x).astype(jnp.float32))


def _relative(got: Any, want: Any) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())


def _cosine(a: Any, b: Any) -> float:
    return float(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)))


@pytest.fixture(params=["taps", "winograd"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of the convolutions; Winograd's sums are taken though channels and pixels are few."""
    monkeypatch.setattr(winograd, "FEW_CHANNELS", 1)
    monkeypatch.setattr(winograd, "FEW_OPERATIONS", 0)
    return request.param


@pytest.fixture(scope="module")
def decoder() -> tuple[VideoVaeConfig, dict[str, torch.Tensor], Any, Any]:
    """Config, weights, a latent and what the official decoder makes of it, before the clamp."""
    section = _section()
    module = randomize(VideoDecoderConfigurator.from_config({"vae": section}))
    # Keeps most pixels inside [0, 1], where a difference shows.
    module.conv_out.conv.weight.mul_(0.5)
    latent = torch.randn(1, 16, 3, 2, 3, generator=torch.Generator().manual_seed(1))
    return VideoVaeConfig.model_validate(section), _state(module, "decoder"), latent, module(latent)


@pytest.fixture(scope="module")
def encoder() -> tuple[VideoVaeConfig, dict[str, torch.Tensor], Any, Any]:
    """Config, weights, frames and what the official encoder makes of them."""
    section = _section()
    module = randomize(VideoEncoderConfigurator.from_config({"vae": section}))
    frames = torch.rand(1, 3, 17, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return VideoVaeConfig.model_validate(section), _state(module, "encoder"), frames, module(frames)


def _pixels(video: torch.Tensor) -> Any:
    """`[1, 3, F, H, W]`, -1 to 1, as `[F, H, W, 3]`, 0 to 1; nothing is clamped before blending."""
    return ((video[0].permute(1, 2, 3, 0) + 1) / 2).numpy()


def test_decoder_equals_the_official_one(decoder: Any, form: Any) -> None:
    """In f32 the frames are the official decoder's, in number, order and value."""
    config, state, latent, want = decoder
    params = load(video_decoder.params(config), state)
    got = _compiled(video_decoder.decode, config, params, jnp.asarray(latent.numpy()), form)
    inside = np.mean((got > 0) & (got < 1))
    assert got.shape == (17, 64, 96, 3)
    assert inside > 0.5
    assert _relative(got, _pixels(want)) <= 1e-5


def test_activation_rounds_as_the_official_one() -> None:
    """In bf16, norm and SiLU give torch's bits: the square, the mean, the sum and the root all round."""
    x = torch.randn(1, 64, 5, 6, 7, generator=torch.Generator().manual_seed(3)).bfloat16()
    want = torch.nn.functional.silu(PixelNorm()(x))[0].permute(1, 2, 3, 0).float().numpy()
    ours = jnp.asarray(x[0].permute(1, 2, 3, 0).float().numpy(), jnp.bfloat16)
    got = jax.jit(video_vae.activate).lower(ours).compile(compiler_options=STRICT)(ours)
    assert np.mean(np.asarray(got.astype(jnp.float32)) == want) > 0.999


def test_decoder_in_bf16(decoder: Any, form: Any) -> None:
    """In bf16 the frames stay close to the f32 ones."""
    config, state, latent, want = decoder
    params = load(video_decoder.params(config), state, jnp.bfloat16)
    got = _compiled(video_decoder.decode, config, params, jnp.asarray(latent.numpy(), jnp.bfloat16), form)
    assert _cosine(got - 0.5, _pixels(want) - 0.5) >= 0.999


def test_encoder_equals_the_official_one(encoder: Any, form: Any) -> None:
    """In f32 the normalised means are the official encoder's."""
    config, state, frames, want = encoder
    params = load(video_encoder.params(config), state)
    got = _compiled(video_encoder.encode, config, params, jnp.asarray(frames.numpy()), form)
    assert got.shape == (1, 16, 3, 2, 3)
    assert _relative(got, want.numpy()) <= 1e-5


def test_encoder_takes_a_single_image(encoder: Any) -> None:
    """An image is a video of one frame: it gives the first latent of the video, for the encoder is causal."""
    config, state, frames, want = encoder
    params = load(video_encoder.params(config), state)
    got = _compiled(video_encoder.encode, config, params, jnp.asarray(frames[:, :, :1].numpy()))
    assert _relative(got, want[:, :, :1].numpy()) <= 1e-5


def test_encoder_in_bf16(encoder: Any, form: Any) -> None:
    """In bf16 the means stay close to the f32 ones."""
    config, state, frames, want = encoder
    params = load(video_encoder.params(config), state, jnp.bfloat16)
    got = _compiled(video_encoder.encode, config, params, jnp.asarray(frames.numpy(), jnp.bfloat16), form)
    assert _cosine(got, want.numpy()) >= 0.999


@pytest.mark.parametrize(
    ("configurator", "table", "side"),
    [
        (VideoDecoderConfigurator, video_decoder.params, "decoder"),
        (VideoEncoderConfigurator, video_encoder.params, "encoder"),
    ],
)
def test_keys_at_real_size(configurator: Any, table: Any, side: str) -> None:
    """At the real size the table names exactly the official keys with their shapes: 84 and two statistics."""
    with torch.device("meta"):
        module = configurator.from_config({"vae": _real()})
    state = _state(module, side)
    assert len(state) == 86
    assert key_diff(table(VideoVaeConfig.model_validate(_real())), state) == AGREES


@pytest.mark.parametrize("kinds", [["compress_all"], ["compress_time", "res_x", "compress_space"]])
def test_decoder_follows_its_block_list(kinds: list[str]) -> None:
    """Other block lists than the official one work too: size and width follow from the list."""
    section = _section(decoder_blocks=[[k, {"num_layers": 1, "multiplier": 2}] for k in kinds])
    module = randomize(VideoDecoderConfigurator.from_config({"vae": section}))
    config = VideoVaeConfig.model_validate(section)
    params = load(video_decoder.params(config), _state(module, "decoder"))
    latent = torch.randn(1, 16, 3, 2, 3)
    got = _compiled(video_decoder.decode, config, params, jnp.asarray(latent.numpy()))
    assert _relative(got, _pixels(module(latent))) <= 1e-5


def test_unsupported_blocks_are_named() -> None:
    """A block kind of another generation is refused by name on both sides."""
    config = VideoVaeConfig.model_validate(
        _section(decoder_blocks=[["attn_res_x", {"num_layers": 1}]], encoder_blocks=[["res_x_y", {}]])
    )
    with pytest.raises(ValueError, match="decoder_blocks: attn_res_x is not supported"):
        video_decoder.params(config)
    with pytest.raises(ValueError, match="encoder_blocks: res_x_y is not supported"):
        video_encoder.params(config)


def test_widths_that_do_not_divide_are_refused() -> None:
    """A multiplier that cannot divide the channels is refused with the numbers."""
    config = VideoVaeConfig.model_validate(
        _section(
            decoder_blocks=[["compress_all", {"multiplier": 3}]],
            encoder_blocks=[["compress_all_res", {"multiplier": 3}]],
        )
    )
    with pytest.raises(ValueError, match="divides 64 channels by 3"):
        video_decoder.params(config)
    with pytest.raises(ValueError, match="from 16 to 48 channels"):
        video_encoder.params(config)


@pytest.mark.parametrize("size", [(8, 32, 32), (9, 48, 32), (9, 32, 16)])
def test_sizes_that_do_not_fit_are_refused(size: tuple[int, int, int]) -> None:
    """Frames are never cropped silently, as the official encoder does."""
    config = VideoVaeConfig.model_validate(_section())
    with pytest.raises(ValueError, match="a multiple of 8 plus 1, height a multiple of 32"):
        video_encoder.encode({}, jnp.zeros((1, 3, *size)), config)
