"""How a video was made, in the video itself: JSON under the name `comment`, the prompt as `description`.

The names are FFmpeg's. MP4, WebM, WAV, GIF and PNG files each have a place for a comment, which players and
tools like ffprobe show.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltx_cache.files import reading
from ltx_run import __version__
from ltx_run.errors import NoProvenance

if TYPE_CHECKING:
    from ltx_run.conditioning import GivenImage
    from ltx_run.job import Batch, Job

COMMENT, DESCRIPTION = "comment", "description"
FIRST = "frame_00001.png"


def tags(job: Job, batch: Batch) -> dict[str, str]:
    """Texts for the files of a job."""
    request = job.request
    record = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": request.seed,
        "images": [_shown(image) for image in request.images],
        "scales": dict(request.scales),
        # What came from a file may have nothing to do with the prompt.
        "tensors_in": request.tensors_in.name if request.tensors_in else None,
        "variant": batch.variant,
        "bundle": batch.bundle.manifest.name,
        "digest": batch.bundle.digest,
        "ltx-run": __version__,
    }
    said = {name: value for name, value in record.items() if value not in (None, [], {})}
    return {COMMENT: json.dumps(said)} | ({DESCRIPTION: request.prompt} if request.prompt else {})


def _shown(image: GivenImage) -> str:
    """An image as the command line takes it, without its folder."""
    return f"{image.path.name}:{image.frame}:{image.strength:g}:{image.crf}"


def read(path: Path) -> dict[str, Any]:
    """What a file, or the first one of a directory of frames, says about its making.

    Raises:
        NoProvenance: It says nothing, or can't be read as a video.
    """
    if path.is_dir():
        path = path / FIRST
    try:
        record = json.loads(_comment(path))
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or "digest" not in record:
        raise NoProvenance(f"{path} doesn't say how it was made", hint="files that ltx-run wrote do")
    return record


def _comment(path: Path) -> str:
    import av

    from ltx_run.png import SIGNATURE, texts

    with reading(path), path.open("rb") as file:
        if file.read(len(SIGNATURE)) == SIGNATURE:
            file.seek(0)
            return texts(file.read()).get(COMMENT, "")
    try:
        with av.open(str(path)) as container:
            found = {name.lower(): text for name, text in container.metadata.items()}
    except av.error.FFmpegError as error:
        raise NoProvenance(f"{path} can't be read as a video: {error.strerror}") from None
    return found.get(COMMENT, "")
