"""The header of a NEFF, the file that Neuron's compiler writes and its runtime loads.

A NEFF is 1024 bytes of header, little-endian, and an archive behind it. There is no magic number: what is no
NEFF shows in sizes and versions that can't be.

Source: the structure `neff_header` in the chapter "Work with NEFF Files" of AWS Neuron's documentation.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEADER_SIZE = 1024
_LAYOUT = struct.Struct("<5Q128sI32s16s256sI64sQI468x")
"""Format and sizes, version of the NEFF, builder, cores, hash, uuid, name, cores asked for, cores per node,
features, logical core size, padding."""
PACKAGES = (1, 2)
"""Kinds of archive: as it is, or compressed."""
NEWEST = 2
"""Highest major version that a runtime takes."""


class BadNeff(ValueError):
    """Bytes that are no NEFF, or a piece of one."""


@dataclass(frozen=True, slots=True)
class NeffHeader:
    """What a NEFF says of itself.

    Attributes:
        version: Of the format, major and minor; a runtime refuses majors that it doesn't know.
        builder: What packed it, for logs.
        uuid: Differs from build to build, as 32 hex digits.
        name: Of the model.
        lnc: Physical cores of a logical one; must be what the device is set to.
        size: Bytes of the whole file.
    """

    version: tuple[int, int]
    builder: str
    uuid: str
    name: str
    lnc: int
    size: int


def read_header(data: bytes, size: int | None = None) -> NeffHeader:
    """Read the header of a NEFF.

    Args:
        data: The file, or its first 1024 bytes.
        size: Bytes of the file; None if `data` is all of it.

    Raises:
        BadNeff: It is no NEFF, or not a whole one; the message says by what.
    """
    size = len(data) if size is None else size
    if len(data) < HEADER_SIZE:
        raise BadNeff(f"{size} bytes are less than a NEFF's header has ({HEADER_SIZE})")
    package, header, payload, major, minor, builder, _, _, uuid, name, _, _, _, lnc = _LAYOUT.unpack_from(
        data
    )
    if package not in PACKAGES or header != HEADER_SIZE or major > NEWEST:
        raise BadNeff(
            f"no NEFF: archive of kind {package}, header of {header} bytes, version {major}.{minor}"
        )
    if not 0 < payload <= size - HEADER_SIZE:
        raise BadNeff(f"the NEFF's archive has {payload} bytes, {size - HEADER_SIZE} are there")
    return NeffHeader((major, minor), _text(builder), uuid.hex(), _text(name), lnc, size)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("ascii", errors="replace")
