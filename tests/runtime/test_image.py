"""Images to tensors, against torch and Pillow."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from ltx_run.errors import BadImage
from ltx_run.image import fitted, load

ORIENTATION = 0x0112
Pixels = NDArray[np.uint8]


def photograph(height: int, width: int, channels: int = 3) -> Pixels:
    """Smooth colours and a little noise, different at every edge."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    planes = [np.sin(5 * x + k) * np.cos(4 * y * (k + 1)) for k in range(channels)]
    values = 128 + 100 * np.stack(planes, -1) + random.normal(0, 3, (height, width, channels))
    return values.clip(0, 255).astype(np.uint8)


def save(path: Path, pixels: Pixels, **options: object) -> Path:
    """Write pixels with Pillow."""
    Image.fromarray(pixels).save(path, **options)
    return path


def official_fit(pixels: Pixels, height: int, width: int) -> torch.Tensor:
    """The official resize and centre crop, in torch."""
    tensor = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    scale = max(height / pixels.shape[0], width / pixels.shape[1])
    size = [math.ceil(side * scale) for side in pixels.shape[:2]]
    tensor = torch.nn.functional.interpolate(tensor, size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return (tensor[:, :, top : top + height, left : left + width] / 127.5 - 1)[:, :, None]


@pytest.mark.parametrize("source", [(70, 111), (33, 40), (64, 96), (1, 1), (500, 90), (31, 3000)])
def test_fitted_equals_torch(source: tuple[int, int]) -> None:
    """Scaling up or down and cutting give torch's pixels at every proportion."""
    pixels = photograph(*source)
    got = fitted(pixels, height=64, width=96, dtype="float32")
    want = official_fit(pixels, 64, 96)
    assert got.shape == (1, 3, 1, 64, 96)
    np.testing.assert_allclose(got, want.numpy(), atol=2e-6)


def test_fitted_in_bf16() -> None:
    """In bf16 the f32 values are rounded once."""
    pixels = photograph(50, 70)
    got = fitted(pixels, height=32, width=64, dtype="bfloat16")
    want = fitted(pixels, height=32, width=64, dtype="float32").astype(got.dtype)
    assert got.dtype.name == "bfloat16"
    assert (got == want).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif"])
def test_formats(suffix: str, tmp_path: Path) -> None:
    """Common formats are read as Pillow reads them."""
    path = save(tmp_path / f"a.{suffix}", photograph(20, 31))
    with Image.open(path) as image:
        want = np.asarray(image.convert("RGB"))
    assert (load(path, 0) == want).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int, tmp_path: Path) -> None:
    """The camera's orientation is applied, mirrored ones too."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = save(tmp_path / "a.png", photograph(20, 30), exif=exif)
    with Image.open(path) as image:
        want = np.asarray(ImageOps.exif_transpose(image))
    assert (load(path, 0) == want).all()
    assert load(path, 0).shape[:2] == ((20, 30) if orientation < 5 else (30, 20))


def test_transparency_is_dropped(tmp_path: Path) -> None:
    """Colours under transparent pixels stay as they are."""
    pixels = photograph(20, 30, 4)
    assert (load(save(tmp_path / "a.png", pixels), 0) == pixels[..., :3]).all()


def test_grey_palette_and_16_bits(tmp_path: Path) -> None:
    """Grey becomes three equal channels, 16 bits lose their low byte, palettes are looked up."""
    grey = photograph(20, 30, 1)[..., 0]
    three = np.repeat(grey[..., None], 3, axis=2)
    assert (load(save(tmp_path / "grey.png", grey), 0) == three).all()
    assert (load(save(tmp_path / "wide.png", grey.astype(np.uint16) * 256 + 77), 0) == three).all()
    palette = Image.fromarray(photograph(20, 30)).quantize(16)
    palette.save(tmp_path / "palette.png")
    assert (load(tmp_path / "palette.png", 0) == np.asarray(palette.convert("RGB"))).all()


def test_colour_profile(tmp_path: Path) -> None:
    """An sRGB profile changes nothing but roundings; one whose red is sRGB's green makes red green."""
    pixels = photograph(20, 30)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = load(save(tmp_path / "srgb.png", pixels, icc_profile=srgb), 0)
    assert np.abs(same.astype(int) - pixels).max() <= 1
    swapped = srgb.replace(b"rXYZ", b"____").replace(b"gXYZ", b"rXYZ").replace(b"____", b"gXYZ")
    got = load(save(tmp_path / "swapped.png", pixels, icc_profile=swapped), 0)
    assert np.abs(got.astype(int) - pixels[..., [1, 0, 2]]).max() <= 1


def test_unusable_colour_profile(tmp_path: Path) -> None:
    """A profile of another kind of colours is refused, not left out."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with pytest.raises(BadImage, match="colour profile can't be used"):
        load(save(tmp_path / "lab.tiff", photograph(20, 30), icc_profile=lab), 0)


def test_encoder_makes_losses(tmp_path: Path) -> None:
    """The encoder cuts to even sides, loses more at a higher factor, and is off at 0."""
    pixels = photograph(41, 63)
    path = save(tmp_path / "a.png", pixels)
    errors = [np.abs(load(path, crf)[:40, :62].astype(int) - pixels[:40, :62]).mean() for crf in (1, 33, 51)]
    assert load(path, 33).shape == (40, 62, 3)
    assert load(path, 0).shape == (41, 63, 3)
    assert 0 < errors[0] < errors[1] < errors[2]
    assert errors[1] < 8


def test_encoder_is_the_official_one(tmp_path: Path) -> None:
    """One frame through libx264 as the official pipelines send it; there the cores decide on the slices."""
    import av

    pixels = photograph(96, 160)
    buffer = io.BytesIO()
    container = av.open(buffer, "w", format="mp4")
    stream = container.add_stream("libx264", rate=1, options={"crf": "33", "preset": "veryfast"})
    stream.height, stream.width, stream.codec_context.thread_count = 96, 160, 1
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
    for packet in [*stream.encode(frame), *stream.encode()]:
        container.mux(packet)
    container.close()
    with av.open(io.BytesIO(buffer.getvalue())) as video:
        want = next(video.decode(video=0)).to_ndarray(format="rgb24")
    assert (load(save(tmp_path / "a.png", pixels), 33) == want).all()


def text(path: Path) -> None:
    """No image."""
    path.write_text("this is a letter")


def empty(path: Path) -> None:
    """Nothing."""
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    """Half a PNG."""
    save(path, photograph(60, 60), format="PNG")
    path.write_bytes(path.read_bytes()[:3000])


def noted(kind: str, *notes: bytes) -> Callable[[Path], None]:
    """A picture on its side, with notes of the camera in its EXIF part."""
    lying = ORIENTATION.to_bytes(2, "big") + b"\0\3\0\0\0\1\0\6\0\0"
    entries = b"".join((lying, *notes))
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + (len(entries) // 12).to_bytes(2, "big") + entries + bytes(4)
    return lambda path: save(path, photograph(20, 30), format=kind, exif=exif)


def cut_exif(path: Path) -> None:
    """A PNG whose EXIF part ends within its first number."""
    save(path, photograph(20, 30), format="PNG", exif=b"Exif\0\0MM\0*\0\0")


def directory(path: Path) -> None:
    """A folder."""
    path.mkdir()


def tiny(path: Path) -> None:
    """One pixel."""
    save(path, photograph(1, 9), format="PNG")


def floats(path: Path) -> None:
    """Values without a white."""
    Image.fromarray(np.ones((8, 8), np.float32)).save(path, format="TIFF")


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (text, "is not an image"),
        (empty, "is not an image"),
        (truncated, "truncated|damaged"),
        (directory, "Is a directory"),
        (lambda path: None, "No such file"),
        (tiny, "9x1; the smallest is 2x2"),
        (floats, "no defined white"),
        (cut_exif, "damaged or not supported: unpack requires a buffer"),
        (noted("JPEG", b"\1\0\0\1\0\0\0\1ab\0\0"), "damaged or not supported: required argument"),
        (noted("JPEG", b"\1\x1a\0\1\0\0\0\1ab\0\0"), "damaged or not supported: bad operand"),
    ],
)
def test_errors(write: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    """What can't be used is named with its reason."""
    path = tmp_path / "a.png"
    write(path)
    with pytest.raises(BadImage, match=reason) as raised:
        load(path, 33)
    assert str(path) in raised.value.message
