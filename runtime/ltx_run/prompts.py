"""Files of prompts: JSON lines, one request each.

    {"prompt": "a red ball rolls", "seed": 7, "output": "ball.mp4"}
    {"prompt": "a cat yawns", "image": ["cat.png", "asleep.png:16:0.8"]}
    {"prompt": "rain on a tin roof"}

Blank lines count and say nothing. What a line leaves out is as the command line says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec

from ltx_cache.files import reading
from ltx_run.conditioning import GivenImage, parse
from ltx_run.errors import BadImage, BadRequests
from ltx_run.request import Request

SEEDS = range(2**64)


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line.

    Attributes:
        prompt: What the video shows.
        seed: Of the noise.
        output: Path of the video, from the folder that the command line names.
        contact_sheet: Path of a PNG file, from there too.
        image: One or several, each as the command line's `--image`.
        negative_prompt: What the video shall not be like.
        guidance: Guidance scales by name, laid over those of the command line.
    """

    prompt: str
    seed: int | None = None
    output: str | None = None
    contact_sheet: str | None = None
    image: str | tuple[str, ...] | None = None
    negative_prompt: str | None = None
    guidance: dict[str, float] = {}


def read(path: Path, folder: Path | None, defaults: Request) -> list[Request]:
    """The requests of a file.

    Args:
        path: Of the file.
        folder: Where outputs go; a line without one goes there under its number.
        defaults: What lines that don't say otherwise ask for.

    Raises:
        BadRequests: The file has no lines, or some that can't be read; all are named.
        FileNotReadable: It can't be read.
    """
    with reading(path):
        lines = path.read_bytes().splitlines()
    requests, errors = [], []
    for number, text in _numbered(lines):
        try:
            requests.append(_request(_parsed(text), number, f"{path}, line {number}", folder, defaults))
        except (msgspec.MsgspecError, ValueError) as error:
            errors.append(f"{path}, line {number}: {error}")
        except BadImage as error:
            errors.append(f"{path}, line {number}: {error.message}")
    if errors:
        raise BadRequests("\n  ".join(errors), hint='a line is, for instance: {"prompt": "rain", "seed": 7}')
    if not requests:
        raise BadRequests(f"{path} has no prompts")
    return requests


def _numbered(lines: list[bytes]) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _parsed(text: bytes) -> Line:
    line = msgspec.json.decode(text, type=Line)
    if line.seed is not None and line.seed not in SEEDS:
        raise ValueError(f"seed {line.seed} is not between 0 and {SEEDS[-1]}")
    if "" in (line.output, line.contact_sheet):
        raise ValueError("an empty text names no output; leave it out to have one by number, or no sheet")
    return line


def _request(line: Line, number: int, where: str, folder: Path | None, defaults: Request) -> Request:
    if line.output is None and folder is None:
        raise ValueError("it names no output, and there is no -o DIRECTORY")
    folder = folder or Path()
    output = line.output or f"{number:04}.mp4"
    return replace(
        defaults,
        prompt=line.prompt,
        seed=defaults.seed if line.seed is None else line.seed,
        output=folder / output,
        directory=output.endswith("/"),
        contact_sheet=folder / line.contact_sheet if line.contact_sheet else None,
        where=where,
        images=defaults.images if line.image is None else _images(line.image),
        negative_prompt=defaults.negative_prompt if line.negative_prompt is None else line.negative_prompt,
        scales={**defaults.scales, **line.guidance},
    )


def _images(texts: str | tuple[str, ...]) -> tuple[GivenImage, ...]:
    return tuple(map(parse, (texts,) if isinstance(texts, str) else texts))
