"""Ed25519 keys and signatures.

A public key is a line as OpenSSH writes it, `ssh-ed25519 AAAA... comment`; a signing key is a PEM file, or
the file that `ssh-keygen -t ed25519` makes. A signature is 64 bytes over the bytes that are signed, so other
tools can check it.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltx_cache.errors import BadKey, ToolMissing
from ltx_cache.files import TempFile, make_folder, reading, writing

KIND = "ssh-ed25519"
_HEAD = len(KIND).to_bytes(4) + KIND.encode() + (32).to_bytes(4)
_PRIVATE = 0o600
_MAKE_ONE = "make a key for this: ltxbuild keygen FILE"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that checks signatures.

    Attributes:
        raw: 32 bytes.
        comment: Whose it is, in the words of whoever made it; means nothing.
    """

    raw: bytes
    comment: str = ""

    @classmethod
    def parse(cls, line: str) -> PublicKey:
        """Read a line.

        Raises:
            BadKey: It is no Ed25519 key in OpenSSH's form.
        """
        kind, _, rest = line.strip().partition(" ")
        encoded, _, comment = rest.strip().partition(" ")
        try:
            blob = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            blob = b""
        if kind != KIND or not blob.startswith(_HEAD) or len(blob) != len(_HEAD) + 32:
            shown = line.strip()[:60]
            raise BadKey(f"{shown!r} is no Ed25519 public key", hint=f"it has the form: {KIND} AAAA... name")
        return cls(blob[len(_HEAD) :], comment.strip())

    @property
    def line(self) -> str:
        """The key as a line."""
        return f"{KIND} {base64.b64encode(_HEAD + self.raw).decode()} {self.comment}".rstrip()

    @property
    def id(self) -> str:
        """64 hex digits that name the key."""
        return hashlib.sha256(_HEAD + self.raw).hexdigest()

    @property
    def fingerprint(self) -> str:
        """The id as `ssh-keygen -l` shows it."""
        return fingerprint(self.id)

    def verifies(self, data: bytes, signature: bytes) -> bool:
        """Whether this is the key's signature of these bytes.

        Raises:
            ToolMissing: `cryptography` is not installed.
        """
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
    """A key that makes signatures."""

    def __init__(self, private: Any, comment: str = "") -> None:
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes_raw(), comment)

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """Read a key file.

        Raises:
            BadKey: It holds no Ed25519 signing key, or one under a passphrase.
            FileNotReadable: It can't be read.
            ToolMissing: `cryptography` is not installed.
        """
        kind = _ed25519().Ed25519PrivateKey
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization as forms

        with reading(path):
            data = path.read_bytes()
        load = forms.load_ssh_private_key if b"OPENSSH" in data else forms.load_pem_private_key
        try:
            private = load(data, password=None)
        except TypeError:
            raise BadKey(
                f"{path} is under a passphrase", hint="make a key without: ltxbuild keygen FILE"
            ) from None
        except (ValueError, UnsupportedAlgorithm) as error:
            raise BadKey(
                f"{path} is no signing key: {error}", hint="ltxbuild keygen FILE makes one"
            ) from None
        if not isinstance(private, kind):
            raise BadKey(
                f"{path} is a key of another kind than Ed25519", hint="ltxbuild keygen FILE makes one"
            )
        return cls(private)

    def sign(self, data: bytes) -> bytes:
        """The signature of these bytes: 64 bytes."""
        signature: bytes = self._private.sign(data)
        return signature


def generate(path: Path, comment: str) -> PublicKey:
    """Write a new signing key to `path`, for this user's eyes, and its public key to `path` with `.pub`.

    Raises:
        BadKey: One of the files exists.
        StoreNotWritable: They can't be written.
        ToolMissing: `cryptography` is not installed.
    """
    key = SigningKey(_ed25519().Ed25519PrivateKey.generate(), comment)
    from cryptography.hazmat.primitives import serialization as forms

    pem = key._private.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
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
