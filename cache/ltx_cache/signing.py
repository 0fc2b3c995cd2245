"""Keys that sign manifests: a PEM file, or the file that `ssh-keygen -t ed25519` makes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadKey
from ltx_cache.files import TempFile, make_folder, reading, writing
from ltx_cache.public_key import PublicKey, load_ed25519, load_openssf

_PRIVATE = 0o600
_OPENSSH = b"OPENSSH"
_MAKE_ONE = "ltxbuild keygen FILE makes one"


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
        ed25519 = load_ed25519()
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
        return EllipticKey(private, path)

    def sign(self, data: bytes, blobs: Iterable[BlobRef] = ()) -> bytes:
        """The signature of a manifest.

        Args:
            data: Its bytes.
            blobs: What it names, for signatures that list it; others cover it by the digests in these bytes.
        """
        signature: bytes = self._private.sign(data)
        return signature


class EllipticKey(SigningKey):
    """An ECDSA key, which signs in the format of OpenSSF.

    Args:
        private: The key.
        file: The PEM file that it is in.

    Raises:
        BadKey: The format knows no keys on its curve.
        ToolMissing: `model-signing` is not installed.
    """

    def __init__(self, private: Any, file: Path) -> None:
        self._openssf, self._file = load_openssf(), file
        try:
            super().__init__(private)
        except ValueError:
            raise BadKey(
                f"{file} is a key on the curve {private.curve.name}, which the format doesn't know",
                hint="ltxbuild keygen --openssf FILE makes one on P-256",
            ) from None

    def sign(self, data: bytes, blobs: Iterable[BlobRef] = ()) -> bytes:
        """The signature of a manifest and of the blobs that it names, with other bytes each time."""
        signature: bytes = self._openssf.sign(self._file, data, blobs)
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
    ed25519 = load_ed25519()
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
