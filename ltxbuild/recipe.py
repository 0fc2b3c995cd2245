"""Recipes: what to build, for which target, at which resolutions.

Example:
    recipe = load(Path("recipes/cpu_tiny.yaml"))
    recipe.variants["default"].height
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from ltxbuild.errors import RecipeError
from ltxbuild.guidance import GuidanceSection, VideoScales
from ltxbuild.model.config import UpsamplerKind
from ltxbuild.model.geometry import FRAME_STRIDE, PIXEL_STRIDE
from ltxbuild.plan.profiles import check_degrees
from ltxbuild.recipe_file import read
from ltxbuild.section import Section
from ltxbuild.targets.section import FlagValue, Platform, TargetSection
from ltxbuild.upsampling import UPSAMPLINGS

Precision = Literal["bfloat16", "float32"]
Pipeline = Literal["distilled_one_stage", "distilled_two_stage", "guided_one_stage", "guided_two_stage"]


class LoraSection(Section):
    """One LoRA file and how strongly it is merged."""

    file: str = Field(description="LoRA (.safetensors) in the official layout: path or hf://org/repo/file")
    strength: Annotated[float, Field(allow_inf_nan=False)] = 1.0


class CheckpointSection(Section):
    """Where the weights are: local paths (relative to the recipe) or `hf://org/repo/file`."""

    model: str | None = Field(None, description="single-file LTX-2.3 checkpoint (.safetensors)")
    text_encoder: str | None = Field(None, description="Gemma-3 directory")
    upsampler: str | None = Field(None, description="latent upsampler (.safetensors), two-stage pipelines")
    loras: tuple[LoraSection, ...] = Field(
        (), description="LoRAs to merge into the model's weights, in order"
    )
    distilled_lora: LoraSection | None = Field(
        None, description="LoRA that makes the weights of the second stage of guided two-stage pipelines"
    )
    distilled: str | None = Field(
        None, description="distilled single-file checkpoint for that stage, in place of `distilled_lora`"
    )
    config: Literal["ltx-2.3-22b", "ltx-2.3-tiny"] = Field(
        "ltx-2.3-22b",
        description="model configuration to use with --programs-only, when there are no weights",
    )

    @model_validator(mode="after")
    def _one_way_to_distil(self) -> CheckpointSection:
        if self.distilled is not None and self.distilled_lora is not None:
            raise ValueError("has both distilled and distilled_lora; the second stage takes one of them")
        return self


class VariantSection(Section):
    """One output geometry."""

    height: Annotated[int, Field(gt=0, multiple_of=PIXEL_STRIDE)]
    width: Annotated[int, Field(gt=0, multiple_of=PIXEL_STRIDE)]
    frames: Annotated[int, Field(gt=0)]
    fps: Annotated[float, Field(gt=0, le=120)] = 24.0
    keyframes: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="images at later frames that it can be given beside one for the first frame; "
        "null: it takes no images",
    )

    @field_validator("frames")
    @classmethod
    def _whole_latent_frames(cls, value: int) -> int:
        if value % FRAME_STRIDE != 1:
            low = (value - 1) // FRAME_STRIDE * FRAME_STRIDE + 1
            raise ValueError(
                f"must be {FRAME_STRIDE}k+1 (the video VAE packs {FRAME_STRIDE} frames); "
                f"nearest: {low} and {low + FRAME_STRIDE}"
            )
        return value


class ProgramSection(Section):
    """Overrides for one program."""

    platform: Platform | None = None
    flags: dict[str, FlagValue] = Field(default_factory=dict)


Block = Annotated[int, Field(ge=128, multiple_of=128)]


class FlashSection(Section):
    """Blocks of the flash attention kernel on TPU, in tokens."""

    queries: Block = Field(1024, description="queries that are held while all keys go by")
    keys: Block = Field(1024, description="keys and values that are fetched at once")
    compute: Block = Field(512, description="keys of which scores are held at once; divides keys")

    @model_validator(mode="after")
    def _whole_fetches(self) -> FlashSection:
        if self.keys % self.compute:
            raise ValueError(f"compute is {self.compute}, which does not divide keys: {self.keys}")
        return self


class Recipe(Section):
    """A whole recipe."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
    checkpoint: CheckpointSection = CheckpointSection()
    target: TargetSection
    pipeline: Pipeline
    upsample: UpsamplerKind = Field(
        "spatial_x2", description="what the latent upsampler between two stages scales; its file must agree"
    )
    steps: Annotated[int, Field(ge=2)] = Field(30, description="denoising steps of guided pipelines")
    guidance: GuidanceSection = GuidanceSection()
    guidance_batch: Literal["batched", "sequential"] = Field(
        "batched", description="passes of a guided step at once, or one after another in less memory"
    )
    precision: Precision = "bfloat16"
    loop: Literal["fused", "stepwise"] = Field(
        "fused", description="denoising loop inside or outside the program"
    )
    layers: Literal["auto", "scan", "unroll"] = "auto"
    attention: Literal["auto", "plain", "blocked", "flash"] = "auto"
    portable: bool = Field(
        False, description="carry what ltx-run --allow-compile compiles where an executable doesn't fit"
    )
    flash: FlashSection = FlashSection()
    tiles: Literal["auto", "official", "equal"] = Field(
        "auto", description="how the video decoder's work is cut; auto: equal, but official on cpu and neuron"
    )
    variants: Annotated[dict[str, VariantSection], Field(min_length=1)]
    programs: dict[str, ProgramSection] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sizes_fit_pipeline(self) -> Recipe:
        check_degrees(self.target.profile, self.target.degrees)
        if self.pipeline.endswith("two_stage"):
            for name, variant in self.variants.items():
                self._check_stages(name, variant)
        elif "upsample" in self.model_fields_set:
            raise ValueError(f"upsample is {self.upsample}; pipeline {self.pipeline} has no upsampler")
        return self

    @model_validator(mode="after")
    def _guidance_fits_pipeline(self) -> Recipe:
        if not self.guided:
            named = {"steps", "guidance", "guidance_batch"} & self.model_fields_set
            if named:
                raise ValueError(f"{min(named)} is for guided pipelines; pipeline {self.pipeline} has none")
        elif self.guidance.perturbed and not self.guidance.stg_blocks:
            raise ValueError("guidance.stg_blocks is empty; name the blocks, or set both stg scales to 0")
        return self

    @model_validator(mode="after")
    def _flash_has_a_kernel(self) -> Recipe:
        if self.attention == "flash" and self.target.platform not in ("tpu", "cuda"):
            raise ValueError(
                f"attention is flash; {self.target.platform} has no kernel for it (tpu, cuda have)"
            )
        if self.attention == "flash" and self.precision != "bfloat16":
            raise ValueError(f"attention is flash, which needs precision bfloat16; it is {self.precision}")
        return self

    @property
    def guided(self) -> bool:
        """Whether the first stage is guided, with a schedule of `steps` steps."""
        return self.pipeline.startswith("guided")

    def _check_stages(self, name: str, variant: VariantSection) -> None:
        """Refuse a size that the first stage can't have."""
        scale = UPSAMPLINGS[self.upsample]
        for field, unit, rest in (
            ("height", scale.side_multiple, 0),
            ("width", scale.side_multiple, 0),
            ("frames", scale.frame_multiple, 1),
        ):
            value = getattr(variant, field)
            if value % unit != rest:
                below = max(value - rest, unit) // unit * unit + rest
                what = f"a multiple of {unit}" + (" plus 1" if rest else "")
                raise ValueError(
                    f"variants.{name}.{field} is {value}; with upsample: {self.upsample} the first stage "
                    f"is smaller, so it must be {what}, for example {below} or {below + unit}"
                )


def load(path: Path) -> Recipe:
    """Read and validate a recipe file, following `extends`.

    Raises:
        RecipeError: The file is missing, isn't YAML, or a field is wrong; every problem is listed.
    """
    data = read(path)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        lines = [_explain(problem, data) for problem in error.errors()]
        raise RecipeError(
            f"{path} is not a valid recipe:\n  " + "\n  ".join(lines),
            hint="all fields: ltxbuild recipe-schema",
        ) from None


def _explain(problem: Any, data: dict[str, Any]) -> str:
    """One line for one pydantic error: field, what is wrong, the value, what is allowed."""
    where = ".".join(str(part) for part in problem["loc"]) or "recipe"
    if problem["type"] == "extra_forbidden":
        allowed = _fields_at(problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), allowed, 1)
        guess = f"; did you mean '{near[0]}'?" if near else ""
        return f"{where}: unknown field{guess} (allowed: {', '.join(allowed)})"
    if problem["type"] == "missing":
        return f"{where}: missing"
    message = problem["msg"].removeprefix("Value error, ")
    value = problem["input"]
    shown = "" if isinstance(value, (dict, BaseModel)) else f" (got {value!r})"
    return f"{where}: {message}{shown}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "checkpoint": CheckpointSection,
        "target": TargetSection,
        "variants": VariantSection,
        "programs": ProgramSection,
        "flash": FlashSection,
        "guidance": GuidanceSection,
    }
    section = sections.get(str(location[0]), Recipe) if location else Recipe
    if location[1:2] in (("loras",), ("distilled_lora",)):
        section = LoraSection
    elif location in (("guidance", "video"), ("guidance", "audio")):
        section = VideoScales
    extra = ["extends"] if section is Recipe else []
    return [*section.model_fields, *extra]
