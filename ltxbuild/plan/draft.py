"""Drafts of plans: steps are appended one by one, and the programs that they need collected on the way."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ltx_run import plan as steps
from ltxbuild.components import ModelConfig
from ltxbuild.model.geometry import MEL_STRIDE, Geometry
from ltxbuild.plan.forms import tiling
from ltxbuild.plan.placement import place
from ltxbuild.plan.profiles import PROFILES
from ltxbuild.plan.programspec import ProgramSpec, Size
from ltxbuild.plan.tiling import tile_shapes, tiles
from ltxbuild.recipe import Recipe, VariantSection

TEXT_LENGTH = 1024
BOS, PAD = 2, 0
POSITIVE, NEGATIVE = "", ".negative"
"""Ends of the names of what a prompt becomes."""
PROMPTS = {POSITIVE: "prompt", NEGATIVE: "negative_prompt"}
Pair = tuple[str, str]
"""Names of a video tensor and of an audio tensor."""


def pair(prefix: str) -> Pair:
    """The names `PREFIX.video` and `PREFIX.audio`."""
    return f"{prefix}.video", f"{prefix}.audio"


@dataclass
class Draft:
    """One variant's plan in the making.

    Attributes:
        recipe: The recipe.
        config: Of the model.
        variant: The variant.
        programs: All programs of the recipe so far.
        steps: The plan so far.
        draws: Noise tensors so far.
    """

    recipe: Recipe
    config: ModelConfig
    variant: VariantSection
    programs: dict[str, ProgramSpec]
    steps: list[steps.Step] = field(default_factory=list)
    draws: int = 0

    def need(self, kind: str, weights: str | None, geometry: Mapping[str, Size], suffix: str) -> str:
        """The name of a program, which the recipe has from now on.

        Programs that the suffix doesn't tell apart are numbered.
        """
        name = f"{kind}.{suffix}" if suffix else kind
        spec = ProgramSpec(name, kind, weights, tuple(geometry.items()))
        for number in itertools.count(2):
            if self.programs.setdefault(spec.id, spec) == spec:
                break
            spec = replace(spec, id=f"{name}-{number}")
        return spec.id

    def run(self, program: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        """Execute a program."""
        self.steps.append(steps.Run(program=program, inputs=inputs, outputs=outputs))

    def noise(self, name: str, shape: tuple[int, ...]) -> str:
        """Draw noise."""
        dtype = self.recipe.precision
        self.steps.append(steps.Noise(outputs=(name,), shape=shape, dtype=dtype, draw=self.draws))
        self.draws += 1
        return name

    def encode_text(self) -> None:
        """Prompt, and the negative prompt where guidance needs it, to contexts of both modalities."""
        negative = self.recipe.guided and self.recipe.guidance.negative
        prompts = (POSITIVE, NEGATIVE) if negative else (POSITIVE,)
        together = PROFILES[self.recipe.target.profile].prompts == "batched"
        batches = [prompts] if together else [(each,) for each in prompts]
        size, suffix = {"batch": len(batches[0]), "length": TEXT_LENGTH}, "x2" if len(batches[0]) > 1 else ""
        for first, *others in batches:
            made = self._tokenize(first, *others)
            encoder = self.need("text_encoder", "text_encoder", size, suffix)
            self.run(encoder, made, pair(f"features{first}"))
        for batch in batches:
            given = (*pair(f"features{batch[0]}"), f"mask{batch[0]}")
            contexts = tuple(name for each in batch for name in pair(f"context{each}"))
            self.run(self.need("connectors", "connectors", size, suffix), given, contexts)

    def _tokenize(self, first: str, *others: str) -> Pair:
        """Names of the tokens and of the mask of prompts that are one batch."""
        made = f"tokens{first}", f"mask{first}"
        prompts = tuple(PROMPTS[each] for each in (first, *others))
        defaults = {PROMPTS[NEGATIVE]: self.recipe.guidance.negative_prompt}
        self.steps.append(
            steps.Tokenize(
                inputs=prompts,
                outputs=made,
                length=TEXT_LENGTH,
                bos=BOS,
                pad=PAD,
                defaults={name: text for name, text in defaults.items() if name in prompts},
            )
        )
        return made

    def upsample(self, latent: str, size: Geometry) -> str:
        """Upsample a video latent."""
        geometry = {"frames": size.frames, "height": size.height, "width": size.width}
        program = self.need("upsampler", "upsampler", geometry, f"{size.frames}x{size.height}x{size.width}")
        self.run(program, (latent,), ("latent.upscaled",))
        return "latent.upscaled"

    def decode_audio(self, latent: str, size: Geometry) -> str:
        """Audio latent to waveform."""
        decoder = self.need("audio_decoder", "audio_decoder", {"audio": size.audio}, f"{size.audio}")
        self.run(decoder, (latent,), ("mel",))
        mel = MEL_STRIDE * size.audio - MEL_STRIDE + 1
        self.run(self.need("vocoder", "vocoder", {"mel": mel}, f"{mel}"), ("mel",), ("waveform",))
        return "waveform"

    def decode_video(self, latent: str, size: Geometry) -> str:
        """Video latent to frames, tile by tile."""
        cut = tiles(size.frames, size.height, size.width, tiling(self.recipe))
        decoder = ProgramSpec("video_decoder", "video_decoder", "video_decoder", ())
        together = place(decoder, self.recipe, self.config, ()).parts("tiles")
        for name, (t, h, w) in tile_shapes(cut).items():
            geometry = {"frames": t, "height": h, "width": w, "tiles": together}
            self.programs[name] = replace(decoder, id=name, geometry=tuple(geometry.items()))
        self.steps.append(
            steps.DecodeTiles(
                inputs=(latent,),
                outputs=("frames",),
                frames=self.variant.frames,
                height=self.variant.height,
                width=self.variant.width,
                tiles=cut,
                together=together,
            )
        )
        return "frames"

    def write(self, frames: str, waveform: str) -> None:
        """Write the video."""
        rate = self.config.ltx.vocoder.bwe.output_sampling_rate
        self.steps.append(steps.WriteVideo(inputs=(frames, waveform), fps=self.variant.fps, sample_rate=rate))
