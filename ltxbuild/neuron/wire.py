"""Protocol buffers without a schema: messages as lists of fields, in their order on the wire.

Only what is looked at is decoded; everything else passes through byte by byte.

Source: the encoding in the protocol buffers documentation (varints, and fields of 8, 4 or any number of
bytes).

Example:
    >>> encoded = encode([(1, 150), (2, b"testing")])
    >>> encoded.hex()
    '089601120774657374696e67'
    >>> list(fields(encoded))
    [(1, 150), (2, b'testing')]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Value = int | bytes
Field = tuple[int, Value]
"""Number and value: an int is a varint, bytes are of known length."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def fields(message: bytes) -> Iterator[Field]:
    """The fields of a message.

    Raises:
        ValueError: It is no message of varints and bytes, or is cut off.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        value, at = _varint(message, at)
        if kind == BYTES:
            if at + value > end:
                raise ValueError(f"field {number} is cut off")
            yield number, message[at : at + value]
            at += value
        elif kind == VARINT:
            yield number, value
        else:
            raise ValueError(f"field {number} has wire type {kind}")


def encode(items: Iterable[Field]) -> bytes:
    """A message of those fields, in that order."""
    out = bytearray()
    for number, value in items:
        if isinstance(value, int):
            out += varint(number << 3 | VARINT)
            out += varint(value)
        else:
            out += varint(number << 3 | BYTES)
            out += varint(len(value))
            out += value
    return bytes(out)


def varint(value: int) -> bytes:
    """An unsigned number, seven bits a byte, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def packed(values: Iterable[int]) -> bytes:
    """A packed list of numbers."""
    return b"".join(varint(value) for value in values)


def numbers(value: Value) -> list[int]:
    """The numbers of one field of a repeated one: a single one, or a packed list."""
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return found


def whole_field(message: bytes, number: int) -> bytes | None:
    """The value of a message's only field; None if it is another, or not all of it is there."""
    try:
        match list(fields(message)):
            case [(found, bytes(value))] if found == number:
                return value
    except (ValueError, IndexError):
        pass
    return None


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A varint and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
