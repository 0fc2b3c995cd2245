"""Small JSON files that check themselves.

A record carries the sha256 of its own value, so that a flipped bit in it is found when it is read.

Example:
    >>> data = encode({"digest": "abc"})
    >>> decode(data)
    {'digest': 'abc'}
    >>> decode(data.replace(b"abc", b"abd"))
    Traceback (most recent call last):
    ...
    ValueError: its checksum does not match its content

Law: `decode(encode(v)) == v` (tuples read as lists).
"""

from __future__ import annotations

from pathlib import Path

from ltx_cache.canonical import JSON, canonical, digest, parse
from ltx_cache.layout import Layout


def encode(value: JSON) -> bytes:
    """The bytes of a record.

    Raises:
        TypeError: Not JSON.
        ValueError: NaN or an infinity.
    """
    return canonical({"sha256": digest(canonical(value)), "value": value}) + b"\n"


def decode(data: bytes) -> JSON:
    """The value in a record.

    Raises:
        ValueError: Damaged, or not a record; the message completes a sentence about it.
    """
    try:
        record = parse(data)
    except ValueError as error:
        raise ValueError(f"it is not valid JSON ({error})") from None
    match record:
        case {"sha256": str(sha256), "value": value, **rest} if not rest:
            if digest(canonical(value)) != sha256:
                raise ValueError("its checksum does not match its content")
            return value
    raise ValueError("it is not a record of this store")


def write(layout: Layout, target: Path, value: JSON) -> None:
    """Publish a record in one step, replacing an earlier one.

    Raises:
        StorageFull: No space left.
        StoreNotWritable: The target can't be written.
    """
    data = encode(value)
    with layout.temp() as temp:
        temp.write(memoryview(data))
        temp.publish(target)
