"""Keys and signatures of manifests.

A public key is a line as OpenSSH writes it, `ssh-ed25519 AAAA... comment`; a signing key is a PEM file, or
the file that `ssh-keygen -t ed25519` makes. The kind of a key is the kind of its signatures: of Ed25519, 64
bytes over the bytes that are signed, so that other tools can check them; of ECDSA, see `ltx_cache.openssf`.

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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadKey, ToolMissing
from ltx_cache.files import TempFile, make_folder, reading, writing

KIND = "ssh-ed25519"
_CURVES = {"nistp256": 65, "nistp384": 97, "nistp521": 133}
"""Bytes of a point by the name of its curve."""
_PRIVATE = 0o600
_OPENSSH = b"OPENSSH"
_MAKE_ONE = "ltxbuild keygen FILE makes one"


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
            return bool(_openssf().verifies(self, data, signature))
        from_bytes = _ed25519().Ed25519PublicKey.from_public_bytes
        from cryptography.exceptions import InvalidSignature

        try:
            from_bytes(self.raw).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


def fingerprint(key: str) -> str:
    """The id of a key as `ssh-keygen -l` shows it."""
    return "SHA256:" + base64.b64encode(bytes.fromhex(key)).decode().rstrip("=")


class SigningKey:
    """A key that makes signatures; this class is for Ed25519."""

    def __init__(self, private: Any, comment: str = "") -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        self._private = private
        self.public = PublicKey.parse(f"{line} {comment}")

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """Read a key file.

        Raises:
            BadKey: It holds no Ed25519 or ECDSA signing key, or one under a passphrase.
            FileNotReadable: It can't be read.
            ToolMissing: `cryptography`, or for ECDSA keys `model-signing`, is not installed.
        """
        ed25519 = _ed25519()
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

        with reading(path):
            data = path.read_bytes()
        private = _private_key(path, data)
        if isinstance(private, ed25519.Ed25519PrivateKey):
            return cls(private)
        if not isinstance(private, EllipticCurvePrivateKey):
            raise BadKey(f"{path} is a key of another kind than Ed25519 and ECDSA", hint=_MAKE_ONE)
        if _OPENSSH in data:
            raise BadKey(f"{path} is an ECDSA key, but no PEM file", hint=f"ssh-keygen -p -m PKCS8 -f {path}")
        key: SigningKey = _openssf().EllipticKey(private, path)
        return key

    def sign(self, data: bytes, blobs: Iterable[BlobRef] = ()) -> bytes:
        """The signature of a manifest.

        Args:
            data: Its bytes.
            blobs: What it names, for signatures that list it; others cover it by the digests in these bytes.
        """
        signature: bytes = self._private.sign(data)
        return signature


def _private_key(path: Path, data: bytes) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as forms

    load = forms.load_ssh_private_key if _OPENSSH in data else forms.load_pem_private_key
    try:
        return load(data, password=None)
    except TypeError:
        raise BadKey(
            f"{path} is under a passphrase", hint="make a key without: ltxbuild keygen FILE"
        ) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey(f"{path} is no signing key: {error}", hint=_MAKE_ONE) from None


def generate(path: Path, comment: str, *, elliptic: bool = False) -> PublicKey:
    """Write a new signing key to `path`, for this user's eyes, and its public key to `path` with `.pub`.

    Args:
        path: A file that isn't there.
        comment: Whose key it is.
        elliptic: Whether it is an ECDSA key (P-256), not an Ed25519 one.

    Raises:
        BadKey: One of the files exists.
        StoreNotWritable: They can't be written.
        ToolMissing: `cryptography` is not installed.
    """
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1()) if elliptic else ed25519.Ed25519PrivateKey.generate()
    key = SigningKey(private, comment)
    pem = private.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    public = path.with_name(path.name + ".pub")
    for file in (path, public):
        if file.exists():
            raise BadKey(
                f"{file} exists; a key that signed something shall not be lost", hint="name another file"
            )
    with writing(path):
        make_folder(path.absolute().parent)
        with TempFile(path.absolute().parent, _PRIVATE) as temp:
            temp.write(memoryview(pem))
            temp.publish(path.absolute())
        public.write_text(key.public.line + "\n", encoding="utf-8")
    return key.public


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError:
        raise ToolMissing(
            "signatures need the package cryptography, which is not installed",
            hint="pip install 'ltxbuild[hub]'",
        ) from None
    return ed25519


def _openssf() -> Any:
    try:
        from ltx_cache import openssf
    except ModuleNotFoundError as error:
        raise ToolMissing(
            f"ECDSA keys sign in OpenSSF's format, which needs the package model-signing: {error}",
            hint="pip install 'ltxbuild[sign]'",
        ) from None
    return openssf
