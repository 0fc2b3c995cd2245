"""Schedules, latents, Euler steps and whole denoising stages."""

from functools import cache, partial
from typing import Any

import diffusion
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusion import GEOMETRY, AudioPatchifier, Inputs, Levels, VideoLatentPatchifier, import_oracles

from ltxbuild.model import denoise, latents, sampler, schedule
from ltxbuild.model.denoise import Stage

import_oracles()
from ltx_core.components.diffusion_steps import EulerDiffusionStep  # noqa: E402
from ltx_core.components.schedulers import LTX2Scheduler  # noqa: E402
from ltx_core.types import AudioLatentShape, VideoLatentShape  # noqa: E402
from ltx_core.utils import to_denoised  # noqa: E402

SHAPES = (
    (1, 128, GEOMETRY.frames, GEOMETRY.height, GEOMETRY.width),
    (1, 8, GEOMETRY.audio, 16),
)
THIRTY_STEPS = """
    1 .994957 .989603 .983908 .97784 .971358 .964421 .956978 .948972 .940336 .930994 .920854 .90981 .897735
    .884479 .869858 .853651 .835584 .815319 .792427 .766363 .736418 .701656 .660813 .612141 .553148 .480164
    .387541 .26612 .1 0
"""


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize(
    ("steps", "sigmas"),
    [
        (30, THIRTY_STEPS),
        (4, "1 .867083 .631569 .1 0"),
        (8, "1 .965712 .921875 .863856 .783445 .664579 .471003 .1 0"),
    ],
)
def test_shifted_schedule_has_known_values(steps: int, sigmas: str) -> None:
    """The schedule of the undistilled model is the known one, to the printed digits."""
    np.testing.assert_allclose(schedule.shifted(steps), np.array(sigmas.split(), float), atol=6e-7)


@pytest.mark.parametrize("steps", [2, 3, 4, 8, 15, 30, 40])
def test_shifted_schedule_is_official_in_f32(steps: int) -> None:
    """Every f32 sigma equals the official scheduler's; the first is not exactly 1."""
    np.testing.assert_array_equal(np.float32(schedule.shifted(steps)), LTX2Scheduler().execute(steps).numpy())
    assert steps != 4 or schedule.shifted(steps)[0] < 1


def test_shifted_schedule_follows_the_token_count() -> None:
    """More tokens shift the schedule further towards noise, as the official scheduler does."""
    latent = torch.empty(1, 128, 16, 17, 30)
    np.testing.assert_array_equal(
        np.float32(schedule.shifted(15, 8160)), LTX2Scheduler().execute(15, latent=latent).numpy()
    )


def test_shifted_schedule_needs_two_steps() -> None:
    """One step leaves nothing to stretch."""
    with pytest.raises(ValueError, match="at least 2 steps, got 1"):
        schedule.shifted(1)


def test_distilled_schedules_fall_to_zero() -> None:
    """Eight and three steps; the second stage ends as the first does."""
    assert (len(schedule.DISTILLED_STAGE_1), len(schedule.DISTILLED_STAGE_2)) == (9, 4)
    assert schedule.DISTILLED_STAGE_1[5:] == schedule.DISTILLED_STAGE_2
    assert list(schedule.DISTILLED_STAGE_1) == sorted(schedule.DISTILLED_STAGE_1, reverse=True)
    assert schedule.DISTILLED_STAGE_1[0] == 1
    assert schedule.DISTILLED_STAGE_1[-1] == 0


def test_patches_are_the_official_ones() -> None:
    """Grids become tokens and tokens grids in the official order."""
    video, audio = _normal(*SHAPES[0]), _normal(*SHAPES[1])
    want_video = VideoLatentPatchifier(1).patchify(torch.from_numpy(video)).numpy()
    want_audio = AudioPatchifier(1).patchify(torch.from_numpy(audio)).numpy()
    tokens = latents.patchify_video(jnp.asarray(video)), latents.patchify_audio(jnp.asarray(audio))
    np.testing.assert_array_equal(tokens[0], want_video)
    np.testing.assert_array_equal(tokens[1], want_audio)
    back = denoise.unpatchify(*tokens, geometry=GEOMETRY)
    np.testing.assert_array_equal(back[0], video)
    np.testing.assert_array_equal(back[1], audio)
    shape_video, shape_audio = VideoLatentShape(*SHAPES[0]), AudioLatentShape(*SHAPES[1])
    unpatched = VideoLatentPatchifier(1).unpatchify(torch.from_numpy(want_video), shape_video)
    np.testing.assert_array_equal(back[0], unpatched.numpy())
    unpatched = AudioPatchifier(1).unpatchify(torch.from_numpy(want_audio), shape_audio)
    np.testing.assert_array_equal(back[1], unpatched.numpy())


@pytest.mark.parametrize("amount", [0.0, 0.3, 0.5, 0.909375, 1.0])
def test_noise_is_mixed_as_torch_interpolates(amount: float) -> None:
    """In bf16 the mix is torch's f32 `lerp`, rounded once; both ends are exact."""
    start, noise = (jnp.asarray(_normal(1, 50, 8, seed=s), jnp.bfloat16) for s in (0, 1))
    mixed = latents.mix_noise(start, noise, jnp.float32(amount))
    a, b = (torch.from_numpy(np.array(x, np.float32)) for x in (start, noise))
    want = torch.lerp(a, b, torch.tensor(amount)).bfloat16().float().numpy()
    assert mixed.dtype == jnp.bfloat16
    # The compiler may fuse multiply and add, which moves a few results across a rounding boundary.
    same = np.asarray(mixed, np.float32) == want
    assert same.all() if amount in (0.0, 1.0) else same.mean() > 0.98
    np.testing.assert_allclose(np.asarray(mixed, np.float32), want, rtol=2**-7)


@pytest.mark.parametrize("index", range(8))
def test_euler_step_is_official_in_bf16(index: int) -> None:
    """Each step of the distilled schedule gives the official bf16 values."""
    sigmas = np.float32(schedule.DISTILLED_STAGE_1)
    noisy, clean = (jnp.asarray(_normal(1, 50, 8, seed=s), jnp.bfloat16) for s in (0, 1))
    args = noisy, clean, jnp.asarray(sigmas[index : index + 1]), jnp.asarray(sigmas[index + 1 : index + 2])
    run = jax.jit(sampler.euler).lower(*args)
    got = run.compile(compiler_options={"xla_allow_excess_precision": False})(*args)
    x, d = (torch.from_numpy(np.array(t, np.float32)).bfloat16() for t in (noisy, clean))
    want = EulerDiffusionStep().step(x, d, torch.from_numpy(sigmas), index).float().numpy()
    same = np.asarray(got, np.float32) == want
    assert same.mean() > 0.98
    np.testing.assert_allclose(np.asarray(got, np.float32), want, rtol=2**-7, atol=1e-6)


def test_last_step_keeps_the_rounded_velocity() -> None:
    """The step to zero ends at `x - sigma * bf16(velocity)`, not at the prediction itself."""
    noisy, clean = (jnp.asarray(_normal(1, 500, 8, seed=s), jnp.bfloat16) for s in (0, 1))
    end = sampler.euler(noisy, clean, jnp.asarray([0.421875], jnp.float32), jnp.zeros(1, jnp.float32))
    assert (end != clean).any()
    np.testing.assert_allclose(np.float32(end), np.float32(clean), atol=0.03)


def _reference(given: Inputs, sigmas: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The loop over the official transformer, all f32, from tokens to tokens."""
    schedule_f32 = torch.tensor(sigmas)
    state = [torch.from_numpy(given.video), torch.from_numpy(given.audio)]
    for index, sigma in enumerate(schedule_f32[:-1]):
        levels = Levels(np.array([sigma]), np.array([[sigma]]))
        tokens = given._replace(video=state[0].numpy(), audio=state[1].numpy())
        velocities = diffusion.official_velocity(tokens, levels, levels)
        for side, velocity in enumerate(velocities):
            clean = to_denoised(state[side], torch.from_numpy(velocity), sigma)
            state[side] = EulerDiffusionStep().step(state[side], clean, schedule_f32, index)
    return state[0].numpy(), state[1].numpy()


def _agree(got: Any, want: tuple[np.ndarray, np.ndarray], relative: float) -> None:
    shape_video, shape_audio = VideoLatentShape(*SHAPES[0]), AudioLatentShape(*SHAPES[1])
    grids = (
        VideoLatentPatchifier(1).unpatchify(torch.from_numpy(want[0]), shape_video).numpy(),
        AudioPatchifier(1).unpatchify(torch.from_numpy(want[1]), shape_audio).numpy(),
    )
    for ours, theirs in zip(got, grids, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=relative * np.abs(theirs).max())


STAGE = Stage(diffusion.config(), GEOMETRY)


def test_first_stage_equals_a_loop_over_the_official_model() -> None:
    """Eight distilled steps from noise, as one program, end where the official loop ends."""
    given, sigmas = diffusion.inputs(), schedule.DISTILLED_STAGE_1
    run = jax.jit(partial(denoise.denoise, stage=STAGE))
    got = run(diffusion.params(), *_told(given), jnp.asarray(sigmas, jnp.float32))
    _agree(got, _reference(given, sigmas), 1e-5)


def _told(given: Inputs, dtype: str = "float32") -> tuple[tuple[jax.Array, jax.Array], denoise.Inputs]:
    """Noise, and the rest of what a stage is told."""
    video, audio, *context = (jnp.asarray(x, dtype) for x in given)
    return (video, audio), denoise.Inputs((context[0], context[1]))


def _starts(dtype: str = "float32") -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(_normal(*shape, seed=7), dtype) for shape in SHAPES)


def _compiled(function: Any, *args: Any) -> Any:
    """Compile with every rounding in place; bf16 code, slow to generate on a CPU, with light optimization."""
    half = any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(args))
    options = {"xla_allow_excess_precision": False} | ({"xla_backend_optimization_level": 0} if half else {})
    return jax.jit(function).lower(*args).compile(compiler_options=options)


@cache
def _second_stage(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """The second stage as one program."""
    sigmas = jnp.asarray(schedule.DISTILLED_STAGE_2, jnp.float32)
    noise, told = _told(diffusion.inputs(), dtype)
    args = (diffusion.params(jnp.dtype(dtype)), _starts(dtype), noise, told, sigmas)
    video, audio = _compiled(partial(denoise.denoise_from, stage=STAGE), *args)(*args)
    assert video.dtype == audio.dtype == dtype
    return np.float32(video), np.float32(audio)


def test_second_stage_equals_a_loop_over_the_official_model() -> None:
    """Three steps from given latents, noised to the first sigma, end where the official loop ends."""
    given, sigmas = diffusion.inputs(), schedule.DISTILLED_STAGE_2
    video, audio = (torch.from_numpy(np.array(start)) for start in _starts())
    tokens = VideoLatentPatchifier(1).patchify(video), AudioPatchifier(1).patchify(audio)
    mixed = [
        torch.lerp(start, torch.from_numpy(noise), torch.tensor(sigmas[0])).numpy()
        for start, noise in zip(tokens, (given.video, given.audio), strict=True)
    ]
    want = _reference(given._replace(video=mixed[0], audio=mixed[1]), sigmas)
    _agree(_second_stage("float32"), want, 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stepwise_equals_fused_bit_for_bit(dtype: str) -> None:
    """A host that drives the steps itself gets the very bits of the fused program."""
    params, (noise, told) = diffusion.params(jnp.dtype(dtype)), _told(diffusion.inputs(), dtype)
    sigmas = jnp.asarray(schedule.DISTILLED_STAGE_2, jnp.float32)
    begin_args = (_starts(dtype), noise, None, sigmas)
    state = _compiled(partial(denoise.begin_from, stage=STAGE), *begin_args)(*begin_args)
    run = partial(denoise.denoise_step, stage=STAGE)
    step = _compiled(run, params, state, sigmas[:1], sigmas[1:2], told)
    for i in range(len(sigmas) - 1):
        state = step(params, state, sigmas[i : i + 1], sigmas[i + 1 : i + 2], told)
    stepped = denoise.unpatchify(*state, geometry=GEOMETRY)
    for whole, parts in zip(_second_stage(dtype), stepped, strict=True):
        np.testing.assert_array_equal(whole, np.float32(parts))


def test_bfloat16_stage_stays_close_to_float32() -> None:
    """A whole stage in bf16 points the same way as the f32 stage."""
    for exact, rounded in zip(_second_stage("float32"), _second_stage("bfloat16"), strict=True):
        cosine = np.vdot(exact, rounded) / np.linalg.norm(exact) / np.linalg.norm(rounded)
        assert cosine >= 0.999
