"""Stages that are given images, against the official modules."""

from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import diffusion
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusion import (
    GEOMETRY,
    Inputs,
    Levels,
    MultiModalTransformerArgsPreprocessor,
    VideoLatentPatchifier,
    VideoLatentShape,
)

from ltxbuild.model import conditioning, denoise, schedule
from ltxbuild.model.conditioning import Images
from ltxbuild.model.denoise import Stage
from ltxbuild.model.guidance import Guidance
from ltxbuild.model.positions import rope_tables

diffusion.import_oracles()
from ltx_core.components.diffusion_steps import EulerDiffusionStep  # noqa: E402
from ltx_core.components.guiders import MultiModalGuider, MultiModalGuiderParams  # noqa: E402
from ltx_core.conditioning import VideoConditionByKeyframeIndex, VideoConditionByLatentIndex  # noqa: E402
from ltx_core.model.transformer.rope import (  # noqa: E402
    LTXRopeType,
    generate_freq_grid_np,
    precompute_freqs_cis,
)
from ltx_core.tools import VideoLatentTools  # noqa: E402
from ltx_core.types import LatentState  # noqa: E402

BOTH = 2
"""Slots for keyframes; there is one for the first frame as well."""
TOKENS, CELLS = GEOMETRY.tokens, GEOMETRY.cells
SHAPE = VideoLatentShape(1, 128, GEOMETRY.frames, GEOMETRY.height, GEOMETRY.width)
SIGMAS = schedule.DISTILLED_STAGE_2
GUIDED = (3.0, 0.7), (7.0, 0.5)
"""cfg and rescale of video and of audio."""


class Image(NamedTuple):
    """One image: pixel frame and strength."""

    frame: int
    strength: float


IMAGES = (Image(0, 0.8), Image(9, 0.8), Image(16, 1.0))


def _latent(index: int) -> np.ndarray:
    shape = (1, 128, 1, GEOMETRY.height, GEOMETRY.width)
    return np.random.default_rng(90 + index).standard_normal(shape, np.float32)


def _official(images: tuple[Image, ...], start: torch.Tensor | None, dtype: torch.dtype) -> LatentState:
    """The official state with images in it.

    Later releases differ from the published one in two ways that are followed here: images come in as clean
    tokens only, so that what is noised stays what it was (nothing, for appended tokens), and a keyframe of
    one frame ends one frame later, not eight.
    """
    tools = VideoLatentTools(VideoLatentPatchifier(1), SHAPE, GEOMETRY.fps)
    free = tools.create_initial_state("cpu", dtype, start)
    state = free = replace(free, positions=diffusion.video_positions(GEOMETRY))
    for index, image in enumerate(images):
        latent = torch.from_numpy(_latent(index)).to(dtype)
        if image.frame == 0:
            state = VideoConditionByLatentIndex(latent, image.strength, 0).apply_to(state, tools)
        else:
            state = VideoConditionByKeyframeIndex(latent, image.frame, image.strength).apply_to(state, tools)
            state.positions[:, 0, -CELLS:, 1] = torch.tensor(image.frame + 1.0) / GEOMETRY.fps
    appended = state.latent.shape[1] - free.latent.shape[1]
    return replace(state, latent=torch.nn.functional.pad(free.latent, (0, 0, 0, appended)))


def _noise(keyframes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    video = rng.standard_normal((1, TOKENS + keyframes * CELLS, 128), np.float32)
    return video, rng.standard_normal((1, GEOMETRY.audio, 128), np.float32)


def _ours(images: tuple[Image, ...], keyframes: int, dtype: str = "float32") -> Images:
    """The images in their slots, the others empty."""
    first = [image for image in images if image.frame == 0]
    later = [image for image in images if image.frame != 0]
    contents: list[Image | None] = [*(first or [None]), *later]
    contents += [None] * (keyframes + 1 - len(contents))
    latents = [_latent(images.index(c)) if c else np.zeros_like(_latent(0)) for c in contents]
    return Images(
        tuple(jnp.asarray(latent, dtype) for latent in latents),
        jnp.asarray([c.frame if c else -1 for c in contents], jnp.int32),
        jnp.asarray([np.float32(1.0 - c.strength) if c else 1 for c in contents], jnp.float32),
    )


def _euler(state: list[torch.Tensor], clean: list[torch.Tensor], index: int) -> list[torch.Tensor]:
    sigmas = torch.tensor(SIGMAS)
    return [EulerDiffusionStep().step(x, d, sigmas, index) for x, d in zip(state, clean, strict=True)]


def _reference(
    images: tuple[Image, ...], start: Any, noise: tuple[np.ndarray, np.ndarray], scales: Any = None
) -> list[np.ndarray]:
    """The official model's loop: given tokens have their own timesteps and are put back in every step."""
    given, negative = diffusion.inputs(), diffusion.inputs(seed=5)
    official = _official(images, None if start is None else torch.from_numpy(start[0]), torch.float32)
    mask, clean = official.denoise_mask, official.clean_latent
    amount = torch.tensor(1.0 if start is None else SIGMAS[0])
    audio = torch.from_numpy(noise[1])
    if start is not None:
        audio = torch.lerp(diffusion.AudioPatchifier(1).patchify(torch.from_numpy(start[1])), audio, amount)
    video = torch.lerp(clean, torch.lerp(official.latent, torch.from_numpy(noise[0]), amount), mask)
    state = [video, audio]
    for index, sigma in enumerate(torch.tensor(SIGMAS)[:-1]):
        times = mask * sigma

        def predict(text: Inputs, state: Any = state, times: Any = times, sigma: Any = sigma) -> Any:
            tokens = text._replace(video=state[0].numpy(), audio=state[1].numpy())
            now = np.array([sigma])
            levels = Levels(now, times[..., 0].numpy()), Levels(now, now[None])
            out = diffusion.official_velocity(tokens, *levels, positions=official.positions)
            return state[0] - torch.from_numpy(out[0]) * times, state[1] - torch.from_numpy(out[1]) * sigma

        predicted = list(predict(given))
        if scales is not None:
            other = predict(negative)
            for side, (cfg, rescale) in enumerate(scales):
                guider = MultiModalGuider(MultiModalGuiderParams(cfg_scale=cfg, rescale_scale=rescale))
                predicted[side] = guider.calculate(predicted[side], other[side], 0.0, 0.0)
        predicted[0] = predicted[0] * mask + clean * (1 - mask)
        state = _euler(state, predicted, index)
    return [x.numpy() for x in state]


@pytest.fixture(autouse=True)
def _own_timesteps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        MultiModalTransformerArgsPreprocessor, "prepare", diffusion.prepare_with_own_timesteps
    )


def _start() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    shapes = SHAPE.to_torch_shape(), (1, 8, GEOMETRY.audio, 16)
    return rng.standard_normal(shapes[0], np.float32), rng.standard_normal(shapes[1], np.float32)


def _compiled(function: Any, *args: Any) -> Any:
    """Compile quickly: only equality counts here."""
    options = {"xla_allow_excess_precision": False, "xla_backend_optimization_level": 0}
    return jax.jit(function).lower(*args).compile(compiler_options=options)


@cache
def _stage(keyframes: int, guided: bool, from_latents: bool, dtype: str = "float32") -> Any:
    """A compiled stage and the rest of its arguments."""
    guidance = Guidance(negative=True) if guided else None
    stage = Stage(diffusion.config(), GEOMETRY, guidance=guidance)
    given, negative = diffusion.inputs(), diffusion.inputs(seed=5)
    told = denoise.Inputs(*((jnp.asarray(t.context_video, dtype), jnp.asarray(t.context_audio, dtype))
                            for t in (given, negative)))  # fmt: skip
    start = tuple(jnp.asarray(x, dtype) for x in _start())
    noise = tuple(jnp.asarray(x, dtype) for x in _noise(keyframes))
    images = _ours((), keyframes, dtype)
    scales = (jnp.zeros(4), jnp.zeros(4)) if guided else None
    sigmas = jnp.asarray(SIGMAS, jnp.float32)
    params = diffusion.params(jnp.dtype(dtype))

    def run(params: Any, noise: Any, start: Any, told: Any, sigmas: Any) -> Any:
        if from_latents:
            return denoise.denoise_from(params, start, noise, told, sigmas, stage=stage)
        return denoise.denoise(params, noise, told, sigmas, stage=stage)

    told = told._replace(images=images, scales=scales)
    args = params, noise, start, told, sigmas
    return _compiled(run, *args), args


def _run(
    images: tuple[Image, ...],
    keyframes: int,
    *,
    from_latents: bool = False,
    scales: Any = None,
    dtype: str = "float32",
) -> tuple[np.ndarray, np.ndarray]:
    program, (params, noise, start, told, sigmas) = _stage(keyframes, scales is not None, from_latents, dtype)
    told = told._replace(images=_ours(images, keyframes, dtype))
    if scales is not None:
        told = told._replace(
            scales=tuple(jnp.asarray([cfg, 0, 1, rescale], jnp.float32) for cfg, rescale in scales)
        )
    video, audio = program(params, noise, start, told, sigmas)
    return np.float32(video), np.float32(audio)


def _close(got: Any, want: Any, relative: float = 1e-5) -> None:
    got, want = np.asarray(got, np.float32), np.asarray(want, np.float32)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=relative * np.abs(want).max())


def _agree(got: tuple[np.ndarray, np.ndarray], want: list[np.ndarray]) -> None:
    grids = denoise.unpatchify(*map(jnp.asarray, want), geometry=GEOMETRY)
    for ours, theirs in zip(got, grids, strict=True):
        _close(ours, theirs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_keyframes_have_official_rotary_tables(dtype: str) -> None:
    """Tables of appended tokens, for any frame picked at run time, are those of the official positions."""
    config = diffusion.config()
    positions = _official(IMAGES, None, torch.float32).positions
    got = jax.jit(lambda k: rope_tables(config, GEOMETRY, dtype, k))(jnp.asarray([9, 16], jnp.int32))
    common = {
        "out_dtype": getattr(torch, dtype),
        "theta": config.positional_embedding_theta,
        "use_middle_indices_grid": True,
        "num_attention_heads": config.num_attention_heads,
        "rope_type": LTXRopeType.SPLIT,
        "freq_grid_generator": generate_freq_grid_np,
    }
    own = precompute_freqs_cis(
        positions, dim=config.video_dim, max_pos=list(config.positional_embedding_max_pos), **common
    )
    cross = precompute_freqs_cis(positions[:, :1], dim=config.audio_dim, max_pos=[20], **common)
    for ours, theirs in ((got.video, own), (got.cross_video, cross)):
        for table, wanted in zip(ours, theirs, strict=True):
            want = wanted[0].float().permute(1, 0, 2).numpy()
            np.testing.assert_allclose(
                np.float32(table), want, rtol=0, atol=1e-6 if dtype == "float32" else 0
            )


@pytest.mark.parametrize("from_latents", [False, True])
def test_images_equal_a_loop_over_the_official_model(from_latents: bool) -> None:
    """A first frame and two keyframes of different strengths, from noise and from the latents of a stage."""
    start = _start() if from_latents else None
    got = _run(IMAGES, BOTH, from_latents=from_latents)
    _agree(got, _reference(IMAGES, start, _noise(BOTH)))


def test_guided_images_equal_a_loop_over_the_official_model() -> None:
    """With guidance the tokens of keyframes take part in the rescale, before images are put back."""
    got = _run(IMAGES, BOTH, scales=GUIDED)
    _agree(got, _reference(IMAGES, None, _noise(BOTH), GUIDED))


@pytest.mark.parametrize(
    ("images", "keyframes", "scales"),
    [
        ((), BOTH, None),
        ((), BOTH, GUIDED),
        ((), 0, None),
        (IMAGES[1:2], BOTH, GUIDED),
        (IMAGES[:1], BOTH, None),
    ],
    ids=["none of three", "guided", "none of one", "guided with a keyframe", "a first frame of three"],
)
def test_empty_slots_change_nothing(images: tuple[Image, ...], keyframes: int, scales: Any) -> None:
    """A program that takes more images than it is given computes what one without those slots would."""
    used = len([image for image in images if image.frame])
    noise = _noise(keyframes)
    shorter = noise[0][:, : TOKENS + used * CELLS], noise[1]
    _agree(_run(images, keyframes, scales=scales), _reference(images, None, shorter, scales))


def test_a_full_strength_image_stays() -> None:
    """The first frame of the result is the image, but for the rounding of the last step."""
    video, _ = _run((Image(0, 1.0),), BOTH)
    _close(video[:, :, :1], _latent(0), 1e-6)


def test_a_keyframes_share_is_rounded_and_a_first_frames_is_not() -> None:
    """In bf16, strength 0.8 leaves 0.2 of a first frame's noise and 0.2001953 of a keyframe's."""
    state = conditioning.given(_ours(IMAGES, BOTH, "bfloat16"), GEOMETRY, jnp.bfloat16)
    official = _official(IMAGES, None, torch.bfloat16).denoise_mask.float().numpy()
    np.testing.assert_array_equal(state.mask, official)
    np.testing.assert_array_equal(state.left, np.float32([1, 0.2, 0.2001953125, 0]))


def test_bfloat16_stage_stays_close_to_float32() -> None:
    """A stage with images in bf16 points the same way as the f32 stage."""
    for exact, rounded in zip(_run(IMAGES, BOTH), _run(IMAGES, BOTH, dtype="bfloat16"), strict=True):
        cosine = np.vdot(exact, rounded) / np.linalg.norm(exact) / np.linalg.norm(rounded)
        assert cosine >= 0.999


def test_stepwise_equals_fused_bit_for_bit() -> None:
    """A host that drives the steps gets the bits of the fused program, images included."""
    stage = Stage(diffusion.config(), GEOMETRY)
    _, (params, noise, start, told, sigmas) = _stage(BOTH, False, True)
    told = told._replace(images=_ours(IMAGES, BOTH))
    begin_args = start, noise, told.images, sigmas
    state = _compiled(partial(denoise.begin_from, stage=stage), *begin_args)(*begin_args)
    run = partial(denoise.denoise_step, stage=stage)
    step = _compiled(run, params, state, sigmas[:1], sigmas[1:2], told)
    for i in range(len(SIGMAS) - 1):
        state = step(params, state, sigmas[i : i + 1], sigmas[i + 1 : i + 2], told)
    stepped = denoise.unpatchify(*state, geometry=GEOMETRY)
    for whole, parts in zip(_run(IMAGES, BOTH, from_latents=True), stepped, strict=True):
        np.testing.assert_array_equal(whole, np.float32(parts))
