"""What a user asks for, and what can be said about it without the bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

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
        OutputError: An output can't be written, or would destroy another one.
        BadPrompt: A prompt is empty, or no text.
        BadRequests: Several requests have something wrong.
    """
    each(requests, _check_request)
    _check_apart([target for request in requests if request.writes for target in _targets(request)])


class _Target(NamedTuple):
    """Something that is written: how messages call it, its path as given, and where that leads."""

    what: str
    path: Path
    place: Path


def _targets(request: Request) -> Iterator[_Target]:
    of = f" of {request.where}" if request.where else ""
    paths = (request.output, request.contact_sheet, request.tensors_out)
    for what, path in zip(("the video", "the contact sheet", "the tensors"), paths, strict=True):
        if path is not None:
            yield _Target(f"{what}{of}", path, path.resolve())


def _check_apart(targets: Sequence[_Target]) -> None:
    """Each has a place of its own, and none is in a directory of frames, which is replaced as a whole."""
    owners: dict[Path, _Target] = {}
    for target in targets:
        other = owners.setdefault(target.place, target)
        if other is not target:
            message = f"{other.what} and {target.what} both go to {target.path}"
            raise OutputError(message, hint="give each of them another path")
    for target in targets:
        for owner in (owners[folder] for folder in target.place.parents if folder in owners):
            raise OutputError(
                f"{target.what} can't go to {target.path}: {owner.what} replaces all of {owner.path}",
                hint=f"put it beside that directory: {owner.path.parent / target.path.name}",
            )


def _check_request(request: Request) -> None:
    if request.writes:
        _check_outputs(request)
    _check_text("prompt", request.prompt)
    _check_text("negative prompt", request.negative_prompt)
    if request.prompt is not None and not request.prompt.strip():
        raise BadPrompt("the prompt is empty", hint='describe the video: --prompt "a red ball rolls"')


def _check_text(what: str, text: str | None) -> None:
    """Bytes of the command line that are no UTF-8 arrive as halves of characters, which no program reads."""
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        raise BadPrompt(
            f"the {what} is not UTF-8 from character {error.start + 1} on",
            hint="call ltx-run from a terminal that writes UTF-8, or use --prompts FILE",
        ) from None


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
