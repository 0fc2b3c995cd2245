"""PNG files with texts: FFmpeg encodes the picture, the texts are chunks put in after its header.

Example:
    >>> import numpy as np
    >>> data = png(np.zeros((2, 2, 3), np.uint8), {"Comment": "black"})
    >>> texts(data)
    {'Comment': 'black'}
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from fractions import Fraction

import av

from ltx_run.pictures import Picture

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = len(SIGNATURE) + 25
"""The header chunk comes first and has this size."""


def png(picture: Picture, tags: Mapping[str, str]) -> bytes:
    """A picture uint8 `[H, W, 3]` as a file."""
    context = av.CodecContext.create("png", "w")
    context.height, context.width, _ = picture.shape
    context.pix_fmt, context.time_base = "rgb24", Fraction(1)
    (packet,) = context.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
    data = bytes(packet)
    return data[:HEADER_END] + b"".join(_text(*tag) for tag in tags.items()) + data[HEADER_END:]


def _text(keyword: str, text: str) -> bytes:
    """An iTXt chunk: not compressed, no language, UTF-8."""
    body = b"iTXt" + keyword.encode("ascii") + b"\0\0\0\0\0" + text.encode()
    return (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def texts(data: bytes) -> dict[str, str]:
    """The texts that `png` has put in, by keyword; none if the file is no PNG."""
    found = {}
    for kind, body in _chunks(data):
        if kind == b"iTXt" and b"\0\0\0\0\0" in body:
            keyword, text = body.split(b"\0\0\0\0\0", 1)
            found[keyword.decode("latin-1")] = text.decode("utf-8", "replace")
    return found


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Chunks before the pixels."""
    at = len(SIGNATURE) if data.startswith(SIGNATURE) else len(data)
    while at + 12 <= len(data) and data[at + 4 : at + 8] != b"IDAT":
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length
