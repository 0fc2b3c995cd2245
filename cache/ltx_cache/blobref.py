"""References to blobs: a digest and a size.

Example:
    >>> ref = BlobRef.of(b"")
    >>> ref
    BlobRef(sha256='e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', size=0)
    >>> BlobRef.parse(ref.json()) == ref
    True
    >>> BlobRef("../../etc/passwd", 0)
    Traceback (most recent call last):
    ...
    ltx_cache.errors.BadName: '../../etc/passwd' is not a valid sha256: 64 lower case hex digits are needed

Law: `BlobRef.parse(ref.json()) == ref`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ltx_cache.canonical import JSON, digest
from ltx_cache.errors import BadName
from ltx_cache.names import checked_digest


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Names the bytes of a blob; a value of this class is always well formed.

    Attributes:
        sha256: Digest of the bytes, 64 lower case hex digits.
        size: Number of bytes.

    Raises:
        BadName: The digest or the size is malformed.
    """

    sha256: str
    size: int

    def __post_init__(self) -> None:
        checked_digest(self.sha256)
        if self.size < 0:
            raise BadName("size of a blob", str(self.size), "it is negative")

    @classmethod
    def of(cls, data: bytes) -> BlobRef:
        """The reference to these bytes."""
        return cls(digest(data), len(data))

    @classmethod
    def parse(cls, value: JSON) -> BlobRef:
        """Read what `json` gives.

        Raises:
            ValueError: It is not of that form.
            BadName: The digest or the size is malformed.
        """
        match value:
            case {"sha256": str(sha256), "size": int(size), **rest} if not rest and not isinstance(
                size, bool
            ):
                return cls(sha256, size)
        raise ValueError("a blob is given as its sha256 and its size")

    def json(self) -> Mapping[str, JSON]:
        """The reference as JSON."""
        return {"sha256": self.sha256, "size": self.size}
