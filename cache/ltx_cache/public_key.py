"""Keys that check the signatures of manifests.

A public key is a line as OpenSSH writes it, `ssh-ed25519 AAAA... comment`. The kind of a key is the kind of
its signatures: of Ed25519, 64 bytes over the bytes that are signed, so that other tools can check them; of
ECDSA, see `ltx_cache.openssf`.

Example:
    >>> public = PublicKey.parse(
    ...     "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea me@example.com"
    ... )
    >>> public.fingerprint, public.comment
    ('SHA256:bbXpuKG6zhzdmnxq256TlqzFBzRl2f6OOg722cYNbU8', 'me@example.com')
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, replace
from typing import Any

from ltx_cache.errors import BadKey, ToolMissing

KIND = "ssh-ed25519"
_CURVES = {"nistp256": 65, "nistp384": 97, "nistp521": 133}
"""Bytes of a point by the name of its curve."""


def _head(size: int, *names: str) -> bytes:
    """What stands before the bytes of a key: names and its size, each name after its own size."""
    return b"".join(len(name).to_bytes(4) + name.encode() for name in names) + size.to_bytes(4)


KINDS = {KIND: (_head(32, KIND), 32)} | {
    f"ecdsa-sha2-{curve}": (_head(size, f"ecdsa-sha2-{curve}", curve), size)
    for curve, size in _CURVES.items()
}
"""Kinds of keys: what stands before a key's bytes, and their number (RFC 8709; RFC 5656, section 3.1)."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that checks signatures.

    Attributes:
        raw: 32 bytes; of ECDSA keys, a point.
        comment: Whose it is, in the words of whoever made it; means nothing.
        kind: As OpenSSH names it.
    """

    raw: bytes
    comment: str = ""
    kind: str = KIND

    @classmethod
    def parse(cls, line: str) -> PublicKey:
        """Read a line.

        Raises:
            BadKey: It is no Ed25519 or ECDSA key in OpenSSH's form.
        """
        kind, _, rest = line.strip().partition(" ")
        encoded, _, comment = rest.strip().partition(" ")
        try:
            blob = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            blob = b""
        head, size = KINDS.get(kind, (b"", 0))
        if not size or not blob.startswith(head) or len(blob) != len(head) + size:
            shown = line.strip()[:60]
            raise BadKey(
                f"{shown!r} is no Ed25519 or ECDSA public key", hint=f"it has the form: {KIND} AAAA... name"
            )
        return cls(blob[len(head) :], comment.strip(), kind)

    @property
    def line(self) -> str:
        """The key as a line."""
        return f"{self.kind} {base64.b64encode(self._blob).decode()} {self.comment}".rstrip()

    @property
    def id(self) -> str:
        """64 hex digits that name the key."""
        return hashlib.sha256(self._blob).hexdigest()

    @property
    def fingerprint(self) -> str:
        """The id as `ssh-keygen -l` shows it."""
        return fingerprint(self.id)

    @property
    def _blob(self) -> bytes:
        return KINDS[self.kind][0] + self.raw

    def verifies(self, data: bytes, signature: bytes) -> bool:
        """Whether this is the key's signature of these bytes.

        Raises:
            ToolMissing: `cryptography`, or for ECDSA keys `model-signing`, is not installed.
        """
        if self.kind != KIND:
            return bool(load_openssf().verifies(replace(self, comment="").line, data, signature))
        from_bytes = load_ed25519().Ed25519PublicKey.from_public_bytes
        from cryptography.exceptions import InvalidSignature

        try:
            from_bytes(self.raw).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


def fingerprint(key: str) -> str:
    """The id of a key as `ssh-keygen -l` shows it."""
    return "SHA256:" + base64.b64encode(bytes.fromhex(key)).decode().rstrip("=")


def load_ed25519() -> Any:
    """The module of `cryptography` for Ed25519.

    Raises:
        ToolMissing: It is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError:
        raise ToolMissing(
            "signatures need the package cryptography, which is not installed",
            hint="pip install 'ltxbuild[hub]'",
        ) from None
    return ed25519


def load_openssf() -> Any:
    """The module for signatures by ECDSA keys.

    Raises:
        ToolMissing: `model-signing`, which it needs, is not installed.
    """
    try:
        from ltx_cache import openssf
    except ModuleNotFoundError as error:
        raise ToolMissing(
            f"ECDSA keys sign in OpenSSF's format, which needs the package model-signing: {error}",
            hint="pip install 'ltxbuild[sign]'",
        ) from None
    return openssf
