"""Safetensors files as memory maps: header checks, zero-copy views, and headers that keep data aligned.

The format is eight bytes of little-endian header length, a JSON header, then the tensors without gaps.
Views are zero-copy on the device when their data is 64-byte aligned, so `header_bytes` pads the header.

Example:
    with SafetensorsFile(path) as file:
        weight = file.view("blocks.attn1.to_q.weight")
"""

from __future__ import annotations

import json
import math
import mmap
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltx_cache.errors import LtxError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALIGNMENT = 64
MAX_HEADER = 100_000_000
MAX_AXES, MAX_NUMBER = 64, 2**63 - 1
"""What numpy has at most. Products of larger numbers may have too many digits for a message."""

DTYPES: Mapping[str, tuple[str, int]] = {
    "BF16": ("bfloat16", 2),
    "F16": ("float16", 2),
    "F32": ("float32", 4),
    "F64": ("float64", 8),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "I32": ("int32", 4),
    "I64": ("int64", 8),
    "BOOL": ("bool", 1),
}
"""The format's dtypes: numpy's name and bytes per element. numpy itself is imported by views alone."""
_BY_NAME = {name: (code, size) for code, (name, size) in DTYPES.items()}


class SafetensorsError(LtxError):
    """A file that is no complete safetensors file."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file: numpy's name of its dtype, shape, and byte range from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Parse and check the header of a file without touching its data.

    Raises:
        SafetensorsError: The file can't be read, is truncated, or its header is malformed.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER, size - 8):
                raise SafetensorsError(f"{path}: not a safetensors file, or truncated ({size} bytes)")
            raw = json.loads(file.read(length))
    except OSError as error:
        raise SafetensorsError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise SafetensorsError(f"{path}: the safetensors header is not valid JSON") from None
    if not isinstance(raw, dict):
        raise SafetensorsError(f"{path}: the safetensors header is not a mapping")
    metadata = raw.pop("__metadata__", {})
    entries = {name: _entry(path, name, info, 8 + length) for name, info in raw.items()}
    end = max((entry.stop for entry in entries.values()), default=8 + length)
    if end != size:
        state = "truncated" if end > size else "longer than its header says"
        raise SafetensorsError(f"{path}: {state}: the header needs {end} bytes, the file has {size}")
    return Header(entries, metadata)


def _entry(path: Path, name: str, info: Any, base: int) -> Entry:
    try:
        dtype, itemsize = DTYPES[info["dtype"]]
        shape = tuple(int(n) for n in info["shape"])
        start, stop = (base + int(offset) for offset in info["data_offsets"])
        if len(shape) > MAX_AXES or max(*shape, start, stop) > MAX_NUMBER:
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError):
        shown = reprlib.repr(info)
        raise SafetensorsError(f"{path}: tensor {name} has an unusable header entry {shown}") from None
    expected = math.prod(shape) * itemsize
    if min(shape, default=0) < 0 or start < base or stop - start != expected:
        raise SafetensorsError(
            f"{path}: tensor {name} of shape {list(shape)} needs {expected} bytes, "
            f"its range holds {stop - start}"
        )
    return Entry(dtype, shape, start, stop)


def header_bytes(tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The file's first bytes, padded so that data starts aligned.

    Order tensors whose byte length is a multiple of 64 first, so that they are aligned too.

    Args:
        tensors: Name, dtype (numpy's name) and shape, in the order in which they are written.
        metadata: Free text by key.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, dtype, shape in tensors:
        code, itemsize = _BY_NAME[dtype]
        size = math.prod(shape) * itemsize
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


class SafetensorsFile:
    """A file mapped read-only; views stay valid as long as they are referenced."""

    def __init__(self, path: Path) -> None:
        """Map a file.

        Raises:
            SafetensorsError: See `read_header`.
        """
        self.path = path
        self.header = read_header(path)
        with path.open("rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def view(self, name: str) -> NDArray[Any]:
        """Read-only array over the mapped bytes of one tensor."""
        import ml_dtypes  # noqa: F401  makes numpy know bfloat16
        import numpy as np

        entry = self.header.entries[name]
        dtype = np.dtype(entry.dtype)
        count = (entry.stop - entry.start) // dtype.itemsize
        return np.frombuffer(self.map, dtype=dtype, count=count, offset=entry.start).reshape(entry.shape)
