"""What a user asks for, and what can be said about it without the bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ltx_cache.errors import LtxError
from ltx_run import outputs
from ltx_run.conditioning import GivenImage
from ltx_run.errors import BadPrompt, BadRequests, OutputError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks for.

    Attributes:
        prompt: None if the tensors given make it needless.
        output: Path of the video; its suffix says what is written.
        seed: Of the noise.
        variant: None to choose: the only one, or the one named `default`.
        tensors_in: File of tensors to take instead of computing them.
        tensors_out: File for the tensors of `tensors.KEPT` that the run makes.
        directory: Whether the output is a directory of PNG files, which may not exist yet.
        audio: Whether there is to be sound.
        contact_sheet: A PNG file for frames of the whole video.
        where: What messages name in front of the rest, such as a line of a file; may be empty.
        images: What the video is made from beside the prompt.
        negative_prompt: What it shall not be like; None for the recipe's.
        scales: Guidance scales by name, where they differ from the recipe's.
        writes: Whether this process writes the outputs; else another one does, which it computes with.
    """

    prompt: str | None
    output: Path
    seed: int
    variant: str | None = None
    tensors_in: Path | None = None
    tensors_out: Path | None = None
    directory: bool = False
    audio: bool = True
    contact_sheet: Path | None = None
    where: str = ""
    images: tuple[GivenImage, ...] = ()
    negative_prompt: str | None = None
    scales: Mapping[str, float] = field(default_factory=dict)
    writes: bool = True

    @property
    def kind(self) -> outputs.Kind:
        """What is written.

        Raises:
            OutputError: The output has an unknown suffix.
        """
        return outputs.kind_of(self.output, directory=self.directory)

    @property
    def wants_pictures(self) -> bool:
        """Whether any output shows pictures."""
        return self.kind.pictures or self.contact_sheet is not None

    @property
    def wants_sound(self) -> bool:
        """Whether the output has sound."""
        return self.kind.sound and self.audio


def check_requests(requests: Sequence[Request]) -> None:
    """What can be said without the bundle.

    Raises:
        OutputError: An output can't be written.
        BadPrompt: A prompt is empty.
        BadRequests: Several requests have something wrong.
    """
    each(requests, _check_request)
    owners: dict[Path, str] = {}
    for request in requests:
        for path in (request.output, request.contact_sheet):
            if path is not None and owners.setdefault(path.absolute(), request.where) != request.where:
                raise OutputError(f"{owners[path.absolute()]} and {request.where} both write {path}")


def _check_request(request: Request) -> None:
    if request.writes:
        _check_outputs(request)
    if request.prompt is not None and not request.prompt.strip():
        raise BadPrompt("the prompt is empty", hint='describe the video: --prompt "a red ball rolls"')


def _check_outputs(request: Request) -> None:
    outputs.check(request.output, request.kind)
    if not request.kind.pictures and not request.audio:
        raise OutputError(f"{request.output} would be empty: it holds sound alone, and there is to be none")
    sheet = request.contact_sheet
    if sheet is not None and sheet.suffix.lower() != outputs.SHEET_SUFFIX:
        raise OutputError(f"cannot write {sheet}: a contact sheet is a {outputs.SHEET_SUFFIX} file")
    for path in (sheet, request.tensors_out):
        if path is not None:
            outputs.check(path)


def each(requests: Sequence[Request], check: Callable[[Request], T]) -> list[T]:
    """A check's result for every request.

    Raises:
        LtxError: The check's, if one request fails; it names the request's origin.
        BadRequests: Those of all that fail, so that they can be mended in one go.
    """
    results, errors = [], []
    for request in requests:
        try:
            results.append(check(request))
        except LtxError as error:
            if request.where:
                error.message = f"{request.where}: {error.message}"
            errors.append(error)
    if len(errors) > 1:
        listed = (error.message for error in errors)
        raise BadRequests("\n  ".join([f"{len(errors)} prompts can't be used:", *listed]))
    if errors:
        raise errors[0]
    return results
