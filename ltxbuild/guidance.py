"""Guidance in a recipe: scales, and which passes of the model follow from them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from ltxbuild.section import Section

SCALES = ("cfg", "stg", "modality", "rescale")
"""Scales of a modality in the order of the programs' inputs `guidance.video` and `guidance.audio`."""
NEGATIVE_PROMPT = (
    "blurry, out of focus, low resolution, compression artifacts, washed-out colours, harsh flicker, "
    "jerky or frozen motion, distorted faces, deformed hands, extra limbs, warped objects, "
    "text, subtitles, logo, watermark, split screen, muffled speech, robotic voice, hiss, clipping, "
    "sound that does not fit the picture"
)

Scale = Annotated[float, Field(allow_inf_nan=False)]


class VideoScales(Section):
    """Guidance of video."""

    cfg: Scale = Field(3.0, description="away from the negative prompt; 1 is none")
    stg: Scale = Field(1.0, description="away from the model without self-attention in stg_blocks; 0 is none")
    modality: Scale = Field(3.0, description="away from audio and video that ignore each other; 1 is none")
    rescale: Scale = Field(
        0.7, description="0 to 1: how far to draw the deviation back to the unguided one's"
    )


class AudioScales(VideoScales):
    """Guidance of audio."""

    cfg: Scale = Field(7.0, description="away from the negative prompt; 1 is none")


class GuidanceSection(Section):
    """How the undistilled model is guided.

    Scales can be changed when a video is made. What is neutral for video and for audio is not compiled.
    """

    video: VideoScales = VideoScales()
    audio: AudioScales = AudioScales()
    stg_blocks: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (28,), description="blocks without self-attention in the stg pass, counted from 0"
    )
    skip_step: Annotated[int, Field(ge=0)] = Field(
        0, description="steps that use the last prediction again after each one that makes its own"
    )
    negative_prompt: str = Field(NEGATIVE_PROMPT, description="what the video shall not be like")

    @field_validator("stg_blocks")
    @classmethod
    def _ordered(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(value)))

    @property
    def negative(self) -> bool:
        """Whether a pass reads the negative prompt."""
        return self.video.cfg != 1 or self.audio.cfg != 1

    @property
    def perturbed(self) -> bool:
        """Whether a pass goes without self-attention in some blocks."""
        return self.video.stg != 0 or self.audio.stg != 0

    @property
    def isolated(self) -> bool:
        """Whether a pass goes without exchange between audio and video."""
        return self.video.modality != 1 or self.audio.modality != 1

    @property
    def passes(self) -> int:
        """Passes of the model in a step."""
        return 1 + self.negative + self.perturbed + self.isolated

    @property
    def fixed(self) -> tuple[str, ...]:
        """Scales that have no pass to act on."""
        acting = {"cfg": self.negative, "stg": self.perturbed, "modality": self.isolated}
        return tuple(name for name, compiled in acting.items() if not compiled)
