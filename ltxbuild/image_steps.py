"""The steps that bring a user's images to a denoising stage."""

from __future__ import annotations

from dataclasses import dataclass

from ltx_run import plan as steps
from ltxbuild.programspec import ProgramSpec


@dataclass(frozen=True, slots=True)
class ImageSteps:
    """Images of a stage.

    Attributes:
        program: Encodes one image.
        steps: From the user's files to latents.
        tensors: What the stage's programs take, in their order.
    """

    program: ProgramSpec
    steps: tuple[steps.Step, ...]
    tensors: tuple[str, ...]


def image_steps(
    stage: str, keyframes: int, height: int, width: int, dtype: str, every: int = 1
) -> ImageSteps:
    """Draft the images of a stage: one for the first frame, and `keyframes` for later ones.

    Args:
        stage: Ends the names of the tensors.
        keyframes: Images after the first frame.
        height: Of the stage in pixels.
        width: Of the stage in pixels.
        dtype: Of the encoder.
        every: Frames of the video for one of the stage.
    """
    size = f"{height}x{width}"
    geometry = (("height", height), ("width", width))
    program = ProgramSpec(f"video_encoder.{size}", "video_encoder", "video_encoder", geometry)
    drafted: list[steps.Step] = []
    latents = []
    for slot in range(keyframes + 1):
        image, latent = f"image.{slot}.{stage}", f"image.{slot}.latent.{stage}"
        drafted.append(steps.LoadImage(outputs=(image,), slot=slot, height=height, width=width, dtype=dtype))
        drafted.append(steps.Run(program=program.id, inputs=(image,), outputs=(latent,)))
        latents.append(latent)
    placed = (f"images.frame.{stage}", f"images.left.{stage}")
    drafted.append(steps.PlaceImages(outputs=placed, keyframes=keyframes, every=every))
    return ImageSteps(program, tuple(drafted), (*latents, *placed))
