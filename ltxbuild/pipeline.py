"""From recipe and model configuration to programs and plans. Pure: no jax, no files.

A pipeline is written once, as a list of steps; each `run` names the program it needs, and the programs
fall out of the plan. Programs are named by what they do and their geometry, so that variants share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ltx_run import plan as steps
from ltxbuild.components import ModelConfig
from ltxbuild.errors import RecipeError
from ltxbuild.model import schedule
from ltxbuild.programspec import ProgramSpec
from ltxbuild.recipe import Recipe, VariantSection
from ltxbuild.tiling import tile_shapes, tiles
from ltxbuild.upsampling import FRAME_STRIDE, PIXEL_STRIDE, UPSAMPLINGS, Upsampling

TEXT_LENGTH = 1024
BOS, PAD = 2, 0
AUDIO_STRIDE = 4
"""Mel frames per audio latent."""


@dataclass(frozen=True, slots=True)
class VariantPlan:
    """A variant with its plan."""

    name: str
    section: VariantSection
    plan: steps.Plan


@dataclass(frozen=True, slots=True)
class Blueprint:
    """All programs and plans of a recipe."""

    programs: dict[str, ProgramSpec]
    variants: tuple[VariantPlan, ...]


@dataclass(frozen=True, slots=True)
class LatentSize:
    """Size of the latents at one stage.

    Attributes:
        frames: Latent frames.
        height: Latent rows.
        width: Latent columns.
        audio: Audio latents.
    """

    frames: int
    height: int
    width: int
    audio: int

    @property
    def tokens(self) -> int:
        """Video tokens."""
        return self.frames * self.height * self.width


def latent_size(variant: VariantSection, config: ModelConfig) -> LatentSize:
    """Latent size of a variant.

    Audio latents are `round(seconds * latents per second)`, Python's rounding (half to even).
    """
    audio = config.ltx.audio_vae
    per_second = audio.sampling_rate / audio.hop_length / AUDIO_STRIDE
    return LatentSize(
        (variant.frames - 1) // FRAME_STRIDE + 1,
        variant.height // PIXEL_STRIDE,
        variant.width // PIXEL_STRIDE,
        round(variant.frames / variant.fps * per_second),
    )


@dataclass
class _Drafter:
    """Collects the steps of one plan and the programs they need."""

    recipe: Recipe
    config: ModelConfig
    programs: dict[str, ProgramSpec]
    steps: list[steps.Step] = field(default_factory=list)
    draws: int = 0

    def need(self, kind: str, component: str | None, geometry: Mapping[str, int | float], suffix: str) -> str:
        name = f"{kind}.{suffix}" if suffix else kind
        self.programs[name] = ProgramSpec(name, kind, component, tuple(geometry.items()))
        return name

    def run(self, program: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        self.steps.append(steps.Run(program=program, inputs=inputs, outputs=outputs))

    def noise(self, name: str, shape: tuple[int, ...]) -> str:
        dtype = self.recipe.precision
        self.steps.append(steps.Noise(outputs=(name,), shape=shape, dtype=dtype, draw=self.draws))
        self.draws += 1
        return name

    def encode_text(self) -> tuple[str, str]:
        """Prompt to the contexts of both modalities."""
        size = {"batch": 1, "length": TEXT_LENGTH}
        self.steps.append(
            steps.Tokenize(
                inputs=("prompt",), outputs=("tokens", "mask"), length=TEXT_LENGTH, bos=BOS, pad=PAD
            )
        )
        features = ("features.video", "features.audio")
        self.run(self.need("text_encoder", "text_encoder", size, ""), ("tokens", "mask"), features)
        context = ("context.video", "context.audio")
        self.run(self.need("connectors", "connectors", size, ""), (*features, "mask"), context)
        return context

    def denoise(
        self,
        stage: str,
        size: LatentSize,
        fps: float,
        context: tuple[str, str],
        start: tuple[str, str] | None,
    ) -> tuple[str, str]:
        """One denoising stage, from noise or from the latents of an earlier stage."""
        transformer = self.config.ltx.transformer
        sigmas = schedule.DISTILLED_STAGE_1 if start is None else schedule.DISTILLED_STAGE_2
        schedule_name = f"sigmas.{stage}"
        self.steps.append(steps.Constant(outputs=(schedule_name,), values=tuple(sigmas), dtype="float32"))
        noise = (
            self.noise(f"noise.{stage}.video", (1, size.tokens, transformer.in_channels)),
            self.noise(f"noise.{stage}.audio", (1, size.audio, transformer.audio_in_channels)),
        )
        latents = (f"latent.{stage}.video", f"latent.{stage}.audio")
        geometry = {
            "frames": size.frames,
            "height": size.height,
            "width": size.width,
            "audio": size.audio,
            "fps": fps,
            "length": TEXT_LENGTH,
        }
        suffix = f"{size.frames}x{size.height}x{size.width}a{size.audio}f{fps:g}"
        draft = self._fused if self.recipe.loop == "fused" else self._stepwise
        draft(geometry, suffix, len(sigmas) - 1, schedule_name, start or (), noise, context, latents)
        return latents

    def _fused(
        self,
        geometry: Mapping[str, int | float],
        suffix: str,
        count: int,
        sigmas: str,
        start: tuple[str, ...],
        noise: tuple[str, str],
        context: tuple[str, str],
        latents: tuple[str, str],
    ) -> None:
        kind = "denoise_from" if start else "denoise"
        program = self.need(kind, "transformer", {**geometry, "steps": count}, f"{suffix}s{count}")
        self.run(program, (*start, *noise, *context, sigmas), latents)

    def _stepwise(
        self,
        geometry: Mapping[str, int | float],
        suffix: str,
        count: int,
        sigmas: str,
        start: tuple[str, ...],
        noise: tuple[str, str],
        context: tuple[str, str],
        latents: tuple[str, str],
    ) -> None:
        state = noise
        if start:
            state = (f"{latents[0]}.noised", f"{latents[1]}.noised")
            mix = self.need("mix_noise", None, {**geometry, "steps": count}, f"{suffix}s{count}")
            self.run(mix, (*start, *noise, sigmas), state)
        tokens = (f"{latents[0]}.tokens", f"{latents[1]}.tokens")
        step = self.need("denoise_step", "transformer", geometry, suffix)
        self.steps.append(steps.Loop(program=step, sigmas=sigmas, inputs=(*state, *context), outputs=tokens))
        self.run(self.need("unpatchify", None, geometry, suffix), tokens, latents)

    def upsample(self, latent: str, size: LatentSize) -> str:
        geometry = {"frames": size.frames, "height": size.height, "width": size.width}
        program = self.need("upsampler", "upsampler", geometry, f"{size.frames}x{size.height}x{size.width}")
        self.run(program, (latent,), ("latent.upscaled",))
        return "latent.upscaled"

    def decode_audio(self, latent: str, size: LatentSize) -> str:
        decoder = self.need("audio_decoder", "audio_decoder", {"audio": size.audio}, f"{size.audio}")
        self.run(decoder, (latent,), ("mel",))
        mel = AUDIO_STRIDE * size.audio - AUDIO_STRIDE + 1
        self.run(self.need("vocoder", "vocoder", {"mel": mel}, f"{mel}"), ("mel",), ("waveform",))
        return "waveform"

    def decode_video(self, latent: str, size: LatentSize, variant: VariantSection) -> str:
        cut = tiles(size.frames, size.height, size.width)
        for name, (t, h, w) in tile_shapes(cut).items():
            geometry = {"frames": t, "height": h, "width": w}
            self.programs[name] = ProgramSpec(name, "video_decoder", "video_decoder", tuple(geometry.items()))
        self.steps.append(
            steps.DecodeTiles(
                inputs=(latent,),
                outputs=("frames",),
                frames=variant.frames,
                height=variant.height,
                width=variant.width,
                tiles=cut,
            )
        )
        return "frames"

    def write(self, frames: str, waveform: str, fps: float) -> None:
        rate = self.config.ltx.vocoder.bwe.output_sampling_rate
        self.steps.append(steps.WriteVideo(inputs=(frames, waveform), fps=fps, sample_rate=rate))


def _one_stage(draft: _Drafter, variant: VariantSection) -> None:
    size = latent_size(variant, draft.config)
    context = draft.encode_text()
    video, audio = draft.denoise("stage1", size, variant.fps, context, None)
    _finish(draft, variant, size, video, audio)


def first_stage(variant: VariantSection, config: ModelConfig, scale: Upsampling) -> tuple[LatentSize, float]:
    """Latent size and frames per second of the stage before the upsampler.

    Both stages have the same sound, though the last frame of fewer frames lasts longer.
    """
    full = latent_size(variant, config)
    smaller = replace(
        full,
        frames=(scale.first_frames(variant.frames) - 1) // FRAME_STRIDE + 1,
        height=scale.first_side(variant.height) // PIXEL_STRIDE,
        width=scale.first_side(variant.width) // PIXEL_STRIDE,
    )
    return smaller, variant.fps / scale.time


def _two_stage(draft: _Drafter, variant: VariantSection) -> None:
    full = latent_size(variant, draft.config)
    small, fps = first_stage(variant, draft.config, UPSAMPLINGS[draft.recipe.upsample])
    context = draft.encode_text()
    video, audio = draft.denoise("stage1", small, fps, context, None)
    upscaled = draft.upsample(video, small)
    video, audio = draft.denoise("stage2", full, variant.fps, context, (upscaled, audio))
    _finish(draft, variant, full, video, audio)


def _finish(draft: _Drafter, variant: VariantSection, size: LatentSize, video: str, audio: str) -> None:
    """Sound first: it is small, and the video is decoded while it is written."""
    waveform = draft.decode_audio(audio, size)
    draft.write(draft.decode_video(video, size, variant), waveform, variant.fps)


PIPELINES: dict[str, Callable[[_Drafter, VariantSection], None]] = {
    "distilled_one_stage": _one_stage,
    "distilled_two_stage": _two_stage,
}


def _check_upsampler(recipe: Recipe, config: ModelConfig) -> None:
    if config.upsampler is None:
        raise RecipeError(
            f"recipe {recipe.name}: pipeline {recipe.pipeline} needs a latent upsampler",
            hint="set checkpoint.upsampler in the recipe or pass --upsampler FILE",
        )
    if config.upsampler.kind != recipe.upsample:
        raise RecipeError(
            f"recipe {recipe.name} has upsample: {recipe.upsample}, its upsampler file is a "
            f"{config.upsampler.kind} one",
            hint=f"set `upsample: {config.upsampler.kind}` in the recipe, or name another file",
        )


def blueprint(recipe: Recipe, config: ModelConfig) -> Blueprint:
    """Programs and plans of a recipe for a model.

    Raises:
        RecipeError: The pipeline needs an upsampler and the recipe names none, or one of another kind.
    """
    if recipe.pipeline.endswith("two_stage"):
        _check_upsampler(recipe, config)
    programs: dict[str, ProgramSpec] = {}
    variants = []
    for name, section in recipe.variants.items():
        draft = _Drafter(recipe, config, programs)
        PIPELINES[recipe.pipeline](draft, section)
        variants.append(VariantPlan(name, section, tuple(draft.steps)))
    unknown = sorted(set(recipe.programs) - {spec.kind for spec in programs.values()})
    if unknown:
        kinds = sorted({spec.kind for spec in programs.values()})
        raise RecipeError(f"programs.{unknown[0]}: no such program (allowed: {', '.join(kinds)})")
    return Blueprint(programs, tuple(variants))
