"""Guidance: impaired passes and their combination, against the official modules."""

import re
from functools import cache, partial
from typing import Any

import diffusion
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusion import GEOMETRY, Inputs, Levels, PerturbationConfig

from ltxbuild.model import adaln, block, denoise, guidance, schedule, transformer
from ltxbuild.model.denoise import Stage
from ltxbuild.model.guidance import Guidance
from ltxbuild.model.positions import rope_tables

diffusion.import_oracles()
from ltx_core.components.diffusion_steps import EulerDiffusionStep  # noqa: E402
from ltx_core.components.guiders import MultiModalGuider, MultiModalGuiderParams  # noqa: E402
from ltx_core.guidance.perturbations import Perturbation, PerturbationType  # noqa: E402
from ltx_core.utils import to_denoised  # noqa: E402

ISOLATED = [
    Perturbation(PerturbationType.SKIP_A2V_CROSS_ATTN, None),
    Perturbation(PerturbationType.SKIP_V2A_CROSS_ATTN, None),
]
VIDEO, AUDIO = PerturbationType.SKIP_VIDEO_SELF_ATTN, PerturbationType.SKIP_AUDIO_SELF_ATTN
FULL = Guidance(negative=True, stg_blocks=(1,), isolated=True)
SCALES = (3.0, 1.0, 3.0, 0.7), (7.0, 1.0, 3.0, 0.7)
"""cfg, stg, modality, rescale of video and of audio."""
SIGMAS = (1.0, 0.9, 0.7, 0.4, 0.0)


def close(got: Any, want: Any, relative: float = 1e-5) -> None:
    """Equal up to `relative` of the largest value."""
    got, want = np.float32(got), np.float32(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=relative * np.abs(want).max())


def perturbed(video: list[int], audio: list[int]) -> PerturbationConfig:
    """The official form of a pass without self-attention in some blocks."""
    return PerturbationConfig([Perturbation(VIDEO, video), Perturbation(AUDIO, audio)])


def test_each_sample_goes_without_its_own_part() -> None:
    """In a batch of five, each with another part left out, all samples equal the official ones."""
    given, sigma = diffusion.inputs(batch=5), np.full(5, 0.7, np.float32)
    levels = Levels(sigma, sigma[:, None])
    official = [
        PerturbationConfig.empty(),
        perturbed([1], []),
        perturbed([0, 1], [0]),
        perturbed([], [1]),
        PerturbationConfig(ISOLATED),
    ]
    want = diffusion.official_velocity(given, levels, levels, official)
    without = block.Perturbation(
        jnp.asarray([[0, 0, 1, 0, 0], [0, 1, 1, 0, 0]], jnp.bool_),
        jnp.asarray([[0, 0, 1, 0, 0], [0, 0, 0, 1, 0]], jnp.bool_),
        jnp.asarray([0, 0, 0, 0, 1], jnp.bool_),
    )
    times = adaln.uniform(jnp.full(1, 0.7, jnp.float32))
    ropes = rope_tables(diffusion.config(), GEOMETRY, jnp.float32)
    args = (diffusion.params(), *map(jnp.asarray, given), times, times, ropes)
    run = partial(transformer.velocity, config=diffusion.config(), without=without)
    got = compiled(run, *args)(*args)
    for ours, theirs in zip(got, want, strict=True):
        close(ours, theirs)


def _predictions(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 2, 9, 8, generator=generator).to(dtype)


@pytest.mark.parametrize(
    ("made", "scales"),
    [
        (FULL, (3.0, 1.0, 3.0, 0.7)),
        (FULL, (7.0, 1.5, 2.0, 0.0)),
        (FULL, (1.0, 0.0, 1.0, 0.7)),
        (Guidance(negative=True), (4.0, 0.0, 1.0, 1.0)),
        (Guidance(stg_blocks=(1,), isolated=True), (1.0, 0.5, 3.0, 0.3)),
    ],
)
def test_predictions_are_combined_as_officially(
    made: Guidance, scales: tuple[float, float, float, float]
) -> None:
    """The sum and the rescale by whole-tensor deviations are the official ones, for any set of passes."""
    cfg, stg, modality, rescale = scales
    clean = _predictions(len(made.passes))
    named = dict(zip(made.passes, clean, strict=True))
    params = MultiModalGuiderParams(cfg, stg, [1], rescale, modality)
    impaired = (named.get(name, 0.0) for name in ("negative", "perturbed", "isolated"))
    want = MultiModalGuider(params).calculate(named["whole"], *impaired)
    got = guidance.combine(made.passes, jnp.asarray(clean.numpy()), jnp.asarray(scales), None)
    close(got, want.numpy(), 1e-6)


def test_guidance_is_rounded_once() -> None:
    """bf16 predictions are combined in f32, as later releases do; the published one rounds each operation."""
    clean = _predictions(4, torch.bfloat16)
    cfg, stg, modality, rescale = SCALES[0]
    params = MultiModalGuiderParams(cfg, stg, [1], rescale, modality)
    want = MultiModalGuider(params).calculate(*clean.float()).bfloat16().float().numpy()
    predictions = jnp.asarray(clean.float().numpy(), jnp.bfloat16)
    got = guidance.combine(FULL.passes, predictions, jnp.asarray(SCALES[0]), None)
    assert got.dtype == jnp.bfloat16
    # The deviations are summed in another order, which moves a few results across a rounding boundary.
    assert (np.float32(got) == want).mean() > 0.98
    np.testing.assert_allclose(np.float32(got), want, rtol=2**-7, atol=1e-6)


def test_hidden_tokens_do_not_count_in_the_rescale() -> None:
    """Tokens of an empty slot leave the deviation as if they were not there."""
    clean = jnp.asarray(_predictions(4).numpy())
    visible = jnp.arange(9) < 6
    got = guidance.combine(FULL.passes, clean, jnp.asarray(SCALES[0]), visible)
    want = guidance.combine(FULL.passes, clean[:, :, :6], jnp.asarray(SCALES[0]), None)
    close(got[:, :6], want, 1e-6)


class Reference:
    """The guided loop over the official model, in f32."""

    def __init__(
        self, given: Inputs, negative: Inputs, scales: Any, blocks: list[int], skip: int = 0
    ) -> None:
        self.given, self.negative, self.blocks, self.skip = given, negative, blocks, skip
        self.params = [MultiModalGuiderParams(cfg, stg, blocks, r, m, skip) for cfg, stg, m, r in scales]

    def predict(
        self, state: list[torch.Tensor], sigma: torch.Tensor, text: Inputs, without: PerturbationConfig
    ) -> list[torch.Tensor]:
        """Clean tokens of one pass."""
        levels = Levels(np.array([sigma]), np.array([[sigma]]))
        tokens = text._replace(video=state[0].numpy(), audio=state[1].numpy())
        velocity = diffusion.official_velocity(tokens, levels, levels, [without])
        return [to_denoised(x, torch.from_numpy(v), sigma) for x, v in zip(state, velocity, strict=True)]

    def guided(self, state: list[torch.Tensor], sigma: torch.Tensor) -> list[torch.Tensor]:
        """Guided clean tokens: passes that are neutral for both modalities are left out."""
        guiders = [MultiModalGuider(params) for params in self.params]
        whole = self.predict(state, sigma, self.given, PerturbationConfig.empty())
        parts: list[Any] = [[0.0, 0.0]] * 3
        if any(g.do_unconditional_generation() for g in guiders):
            parts[0] = self.predict(state, sigma, self.negative, PerturbationConfig.empty())
        if any(g.do_perturbed_generation() for g in guiders):
            active = [self.blocks if g.do_perturbed_generation() else [] for g in guiders]
            parts[1] = self.predict(state, sigma, self.given, perturbed(*active))
        if any(g.do_isolated_modality_generation() for g in guiders):
            parts[2] = self.predict(state, sigma, self.given, PerturbationConfig(ISOLATED))
        return [
            guider.calculate(whole[side], *(part[side] for part in parts))
            for side, guider in enumerate(guiders)
        ]

    def run(self, sigmas: tuple[float, ...]) -> list[np.ndarray]:
        """Tokens at the end of the schedule."""
        state = [torch.from_numpy(self.given.video), torch.from_numpy(self.given.audio)]
        clean: list[torch.Tensor] = []
        for index, sigma in enumerate(torch.tensor(sigmas)[:-1]):
            if not MultiModalGuider(self.params[0]).should_skip_step(index):
                clean = self.guided(state, sigma)
            state = [
                EulerDiffusionStep().step(x, x0, torch.tensor(sigmas), index)
                for x, x0 in zip(state, clean, strict=True)
            ]
        return [x.numpy() for x in state]


def compiled(function: Any, *args: Any) -> Any:
    """Compile quickly: only equality counts here."""
    options = {"xla_allow_excess_precision": False, "xla_backend_optimization_level": 0}
    return jax.jit(function).lower(*args).compile(compiler_options=options)


def arguments(scales: Any = SCALES, dtype: str = "float32", sigmas: tuple[float, ...] = SIGMAS) -> Any:
    """Arguments of a guided stage."""
    video, audio, *context = (jnp.asarray(x, dtype) for x in diffusion.inputs())
    negative = diffusion.inputs(seed=5)
    told = denoise.Inputs(
        (context[0], context[1]),
        (jnp.asarray(negative.context_video, dtype), jnp.asarray(negative.context_audio, dtype)),
        (jnp.asarray(scales[0], jnp.float32), jnp.asarray(scales[1], jnp.float32)),
    )
    return diffusion.params(jnp.dtype(dtype)), (video, audio), told, jnp.asarray(sigmas, jnp.float32)


@cache
def program(stride: int, dtype: str) -> Any:
    """A guided stage with all passes in one batch; any scales suit it."""
    stage = Stage(diffusion.config(), GEOMETRY, guidance=FULL, stride=stride)
    return compiled(partial(denoise.denoise, stage=stage), *arguments(dtype=dtype))


@cache
def batched(stride: int, scales: Any = SCALES, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """What that stage makes."""
    video, audio = program(stride, dtype)(*arguments(scales, dtype))
    return np.float32(video), np.float32(audio)


NO_AUDIO_STG = SCALES[0], (7.0, 0.0, 3.0, 0.7)


@pytest.mark.parametrize(("stride", "scales"), [(1, SCALES), (3, SCALES), (1, NO_AUDIO_STG)])
def test_guided_stage_equals_a_loop_over_the_official_model(stride: int, scales: Any) -> None:
    """Guided steps, some skipped; audio whose stg is zero at run time keeps its self-attention."""
    reference = Reference(diffusion.inputs(), diffusion.inputs(seed=5), scales, [1], stride - 1)
    want = reference.run(SIGMAS)
    grids = denoise.unpatchify(*map(jnp.asarray, want), geometry=GEOMETRY)
    for ours, theirs in zip(batched(stride, scales), grids, strict=True):
        close(ours, theirs)


def test_passes_in_turn_equal_passes_in_a_batch() -> None:
    """One pass after another, in the memory of one, gives the numbers of the batch."""
    in_turn = Guidance(negative=True, stg_blocks=(1,), isolated=True, batched=False)
    args = arguments()
    stage = Stage(diffusion.config(), GEOMETRY, guidance=in_turn)
    got = compiled(partial(denoise.denoise, stage=stage), *args)(*args)
    for ours, theirs in zip(got, batched(1), strict=True):
        close(ours, theirs)


def test_bfloat16_stage_stays_close_to_float32() -> None:
    """A guided stage in bf16, with moderate scales, points the same way as the f32 stage."""
    moderate = (1.5, 0.5, 1.5, 0.7), (1.5, 0.5, 1.5, 0.7)
    for exact, rounded in zip(batched(1, moderate), batched(1, moderate, "bfloat16"), strict=True):
        cosine = np.vdot(exact, rounded) / np.linalg.norm(exact) / np.linalg.norm(rounded)
        assert cosine >= 0.999


@pytest.mark.parametrize("stride", [1, 3])
def test_stepwise_equals_fused_bit_for_bit(stride: int) -> None:
    """A host that drives the loop gets the bits of the fused program; a stride of 3 leaves one step over."""
    stage = Stage(diffusion.config(), GEOMETRY, guidance=FULL, stride=stride)
    params, state, told, sigmas = arguments()
    windows = [sigmas[np.minimum(np.arange(i, i + stride + 1), 4)] for i in range(0, 4, stride)]
    run = partial(denoise.denoise_step, stage=stage)
    step = compiled(run, params, state, windows[0][:1], windows[0][1:], told)
    for window in windows:
        state = step(params, state, window[:1], window[1:], told)
    stepped = denoise.unpatchify(*state, geometry=GEOMETRY)
    for whole, parts in zip(batched(stride), stepped, strict=True):
        np.testing.assert_array_equal(whole, np.float32(parts))


@pytest.mark.parametrize(
    ("made", "passes"),
    [
        (Guidance(), 1),
        (Guidance(negative=True), 2),
        (Guidance(stg_blocks=(0,)), 2),
        (Guidance(isolated=True, negative=True), 3),
        (FULL, 4),
    ],
)
def test_only_named_passes_are_compiled(made: Guidance, passes: int) -> None:
    """The batch that runs through the blocks has one sample per pass."""
    stage = Stage(diffusion.config(), GEOMETRY, guidance=made)
    lowered = jax.jit(partial(denoise.denoise, stage=stage)).lower(*arguments()).as_text()
    width = diffusion.config().video_dim
    assert set(re.findall(rf"tensor<(\d+)x{GEOMETRY.tokens}x{width}xf32>", lowered)) == {str(passes)}


def test_a_negative_pass_needs_negative_text() -> None:
    """A stage that was promised text and gets none says so."""
    *_, told, _ = arguments()
    with pytest.raises(ValueError, match="needs negative text"):
        guidance.arrange(FULL, told.context, None, told.scales, 2)


def test_full_schedule_of_the_undistilled_model_is_accepted() -> None:
    """A stage takes any number of sigmas; the length alone is fixed."""
    args = arguments(sigmas=schedule.shifted(30))
    stage = Stage(diffusion.config(), GEOMETRY, guidance=Guidance(negative=True), stride=4)
    video, audio = jax.eval_shape(partial(denoise.denoise, stage=stage), *args)
    assert (video.shape, audio.shape) == ((1, 128, 3, 2, 3), (1, 8, 5, 16))
