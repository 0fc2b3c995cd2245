"""Images that a video is made from: what the user asks for, and the tensors that programs take for them.

A variant that takes images has a slot for the first frame and slots for keyframes at later frames. What is in
them is decided here, before anything is loaded; a slot without an image gets zeros in place of the encoder's
result, so that a run without images loads no encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltx_run.distribution import DTYPES
from ltx_run.errors import BadImage
from ltx_run.flow import Signature
from ltx_run.image import Pixels, fitted, load
from ltx_run.plan import LoadImage, PlaceImages, Plan, Run

Array = NDArray[Any]

DEFAULT_CRF, MAX_CRF = 33, 51
FIELDS = ("frame", "strength", "CRF")
EMPTY = -1
"""Frame of a slot without an image."""


@dataclass(frozen=True, slots=True)
class GivenImage:
    """An image at a frame of the video.

    Attributes:
        path: Of the file.
        frame: Frame of the video, from 0.
        strength: 1 keeps the image as it is, 0 ignores it.
        crf: Loss of the encoder that it goes through first, 0 for none.
    """

    path: Path
    frame: int = 0
    strength: float = 1.0
    crf: int = DEFAULT_CRF

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            BadImage: One is out of its range.
        """
        if self.frame < 0:
            raise BadImage(f"image {self.path}: frame {self.frame} is negative; frames count from 0")
        if not 0 <= self.strength <= 1:
            raise BadImage(f"image {self.path}: strength {self.strength:g} is not between 0 and 1")
        if not 0 <= self.crf <= MAX_CRF:
            raise BadImage(f"image {self.path}: CRF {self.crf} is not between 0 and {MAX_CRF}")


def parse(text: str) -> GivenImage:
    """Read `PATH[:FRAME[:STRENGTH[:CRF]]]`.

    A path may have colons in it: the fields begin after the longest part of the text that names a file.

    Raises:
        BadImage: There is no such file, or a field is no number in its range.
    """
    parts = text.split(":")
    splits = range(len(parts), max(0, len(parts) - len(FIELDS) - 1), -1)
    for split in splits:
        path = Path(":".join(parts[:split]))
        if path.is_file():
            return GivenImage(path, *_numbers(path, parts[split:]))
    raise BadImage(
        f"there is no image file {_likely_path(parts)!r}",
        hint="--image PATH[:FRAME[:STRENGTH[:CRF]]], for example cat.png:0:0.8",
    )


def _numbers(path: Path, fields: Sequence[str]) -> list[Any]:
    numbers: list[float] = []
    for name, field, kind in zip(FIELDS, fields, (int, float, int), strict=False):
        try:
            numbers.append(kind(field))
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise BadImage(f"image {path}: {name} {field!r} is not {what}") from None
    return numbers


def _likely_path(parts: Sequence[str]) -> str:
    """What was probably meant as the path: everything before the numbers at the end."""
    kept = list(parts)
    while len(kept) > max(1, len(parts) - len(FIELDS)) and _is_number(kept[-1]):
        kept.pop()
    return ":".join(kept)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def tensors(
    images: Sequence[GivenImage], plan: Plan, signatures: Mapping[str, Signature], frames: int
) -> dict[str, Array]:
    """Everything about images that a plan's programs read.

    Args:
        images: What the user gave.
        plan: Of the variant.
        signatures: Of the plan's tensors.
        frames: Of the video.

    Returns:
        Results of the plan's steps `load_image` and `place_images`, and zeros for results of programs that
        would encode what isn't there.

    Raises:
        BadImage: A file can't be used, or the variant has no place for an image.
    """
    places = [step for step in plan if isinstance(step, PlaceImages)]
    if not places:
        if images:
            raise BadImage(
                "this variant takes no images",
                hint="give the variant `keyframes: 0` (or the number of images after the first frame) "
                "in the recipe, and compile it again",
            )
        return {}
    slots = _slots(images, places[0], frames)
    pixels = {number: load(image.path, image.crf) for number, image in slots.items()}
    made: dict[str, Array] = {}
    for step in plan:
        match step:
            case PlaceImages():
                made.update(zip(step.outputs, _placed(slots, step), strict=True))
            case LoadImage():
                made.update(_image(step, pixels.get(step.slot), plan, signatures))
            case _:
                pass
    return made


def _slots(images: Sequence[GivenImage], step: PlaceImages, frames: int) -> dict[int, GivenImage]:
    """Images by slot: slot 0 is the first frame, the others are keyframes in the order given."""
    at: dict[int, GivenImage] = {}
    for image in images:
        if image.frame >= frames:
            raise BadImage(
                f"image {image.path}: frame {image.frame} is out of range; "
                f"the video has frames 0 to {frames - 1}"
            )
        if image.frame in at:
            raise BadImage(f"images {at[image.frame].path} and {image.path} are both for frame {image.frame}")
        at[image.frame] = image
    later = [image for image in images if image.frame]
    if len(later) > step.keyframes:
        raise BadImage(
            f"{len(later)} images are for frames after the first; "
            f"the variant was compiled for {step.keyframes} (`keyframes: {step.keyframes}`)",
            hint=f"set `keyframes: {len(later)}` for the variant in the recipe, and compile it again",
        )
    return {**({0: at[0]} if 0 in at else {}), **dict(enumerate(later, 1))}


def _placed(slots: Mapping[int, GivenImage], step: PlaceImages) -> tuple[Array, Array]:
    """Frame of each slot, int32, and share of the noise that is left there, f32."""
    frame = np.full(step.keyframes + 1, EMPTY, np.int32)
    left = np.ones(step.keyframes + 1, np.float32)
    for number, image in slots.items():
        frame[number] = image.frame // step.every
        left[number] = 1 - image.strength
    return frame, left


def _image(
    step: LoadImage, pixels: Pixels | None, plan: Plan, signatures: Mapping[str, Signature]
) -> dict[str, Array]:
    if pixels is not None:
        return {step.outputs[0]: fitted(pixels, height=step.height, width=step.width, dtype=step.dtype)}
    readers = [other for other in plan if isinstance(other, Run) and step.outputs[0] in other.inputs]
    names = [name for reader in readers for name in reader.outputs]
    return {name: np.zeros(signatures[name].shape, DTYPES[signatures[name].dtype]) for name in names}
