"""Image files to the tensors that the video encoder takes, prepared as in training.

An image goes through an H.264 encoder first, since the model saw frames of videos and no clean pictures. Then
it is scaled to cover the frame and cut to it.

Example:
    pixels = load(Path("cat.jpg"), crf=33)
    tensor = fitted(pixels, height=512, width=768, dtype="bfloat16")
"""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from numpy.typing import NDArray

from ltx_run.distribution import DTYPES
from ltx_run.errors import BadImage

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]

PRESET = "veryfast"
WIDE = {"I;16", "I;16L", "I;16B", "I;16N"}
"""Pillow's modes of 16 bits."""
UNBOUNDED = {"I", "F"}
"""Pillow's modes whose white is not defined."""


def load(path: Path, crf: int) -> Pixels:
    """Read an image file and take it through the encoder.

    Args:
        path: Of the file.
        crf: Loss of the encoder, 0 (the image as it is) to 51; the official default is 33.

    Returns:
        sRGB `[h, w, 3]`, upright, without transparency; with an encoder, h and w are even.

    Raises:
        BadImage: The file can't be read, is no image, or is too small or too large.
    """
    pixels = _read(path)
    height, width = (side // 2 * 2 for side in pixels.shape[:2])
    if not height or not width:
        raise BadImage(f"image {path} is {pixels.shape[1]}x{pixels.shape[0]}; the smallest is 2x2")
    if crf == 0:
        return pixels
    try:
        return _decoded(_encoded(pixels[:height, :width], crf))
    except (av.error.FFmpegError, ValueError) as error:
        raise BadImage(f"image {path} of {width}x{height} can't be encoded: {error}") from None


def fitted(pixels: Pixels, *, height: int, width: int, dtype: str) -> NDArray[Any]:
    """Scale an image until it covers the frame, and cut the middle out.

    Bilinear between pixel centres, without a filter against aliasing.

    Returns:
        `[1, 3, 1, height, width]` in [-1, 1].
    """
    scale = max(height / pixels.shape[0], width / pixels.shape[1])
    rows = _taps(pixels.shape[0], height, scale)
    columns = _taps(pixels.shape[1], width, scale)
    across = _mix(pixels, columns, axis=1)
    frame = _mix(across, rows, axis=0) / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(frame.transpose(2, 0, 1)[None, :, None].astype(DTYPES[dtype]))


Taps = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]
"""Per output pixel the two it lies between, and the weight of the second."""


def _taps(size: int, target: int, scale: float) -> Taps:
    scaled = math.ceil(size * scale)
    first = (scaled - target) // 2
    step = np.float32(size / scaled)
    centres = np.arange(first, first + target, dtype=np.float32) + np.float32(0.5)
    at = np.maximum(centres * step - np.float32(0.5), np.float32(0))
    low = np.minimum(at.astype(np.intp), size - 1)
    return low, np.minimum(low + 1, size - 1), (at - low).astype(np.float32)


def _mix(values: NDArray[Any], taps: Taps, axis: int) -> NDArray[np.float32]:
    low, high, weight = taps
    shape = [1, 1, 1]
    shape[axis] = len(weight)
    share = weight.reshape(shape)
    below = values.take(low, axis).astype(np.float32)
    above = values.take(high, axis).astype(np.float32)
    mixed: NDArray[np.float32] = below * (1 - share) + above * share
    return mixed


def _read(path: Path) -> Pixels:
    """Decode a file with Pillow.

    It is imported here: most runs have no image.
    """
    from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Large photographs are welcome; what is too large even for Pillow is an error all the same.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return np.asarray(_srgb(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError:
        raise BadImage(f"{path} is not an image of a known format") from None
    except ImageCms.PyCMSError as error:
        raise BadImage(
            f"image {path}: its colour profile can't be used: {error}",
            hint="save the image again in sRGB, or without a profile",
        ) from None
    except OSError as error:
        raise BadImage(f"cannot read image {path}: {error.strerror or error}") from None
    except Exception as error:  # Pillow's readers stumble over damage with struct.error, TypeError and more
        raise BadImage(f"image {path} is damaged or not supported: {error or type(error).__name__}") from None


def _srgb(image: Image.Image) -> Image.Image:
    """The image in sRGB; transparency is dropped, not blended."""
    from PIL import Image, ImageCms

    if image.mode in UNBOUNDED:
        raise ValueError(f"values of mode {image.mode} have no defined white; save it with 8 or 16 bits")
    if image.mode in WIDE:
        high = np.asarray(image).astype(np.uint16) >> 8
        profile = image.info.get("icc_profile")
        image = Image.fromarray(high.astype(np.uint8))
    else:
        profile = image.info.get("icc_profile")
        image = image.convert({"LA": "L", "1": "L", "CMYK": "CMYK", "L": "L"}.get(image.mode, "RGB"))
    if not profile:
        return image.convert("RGB")
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None
    return converted


def _encoded(pixels: Pixels, crf: int) -> bytes:
    """One frame of H.264 in MP4."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=1, options={"crf": str(crf), "preset": PRESET})
        stream.height, stream.width = pixels.shape[:2]
        # By default x264 cuts the frame into as many slices as there are cores.
        stream.codec_context.thread_count = 1
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _decoded(video: bytes) -> Pixels:
    with av.open(io.BytesIO(video), "r") as container:
        return np.asarray(next(container.decode(video=0)).to_ndarray(format="rgb24"), np.uint8)
