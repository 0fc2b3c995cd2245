"""Signatures in the format of OpenSSF model signing, by ECDSA keys in PEM files.

Such a signature is a Sigstore bundle with a list of files and their sha256, under a name. Here the files are
the manifest and the blobs of a bundle, under their paths in a remote, so that `model_signing verify key` can
check a copy of the remote; the name is the manifest's digest.

The package `model-signing` makes and checks it; only its hashing of files is replaced, because the name of a
blob is its digest. It is imported here at once, so this module is imported late.

Source: https://github.com/ossf/model-signing-spec
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography.hazmat.primitives import serialization as forms
from model_signing import hashing, manifest, signing, verifying
from model_signing._hashing.hashing import Digest  # public functions take it, but no public name has it

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadKey, LtxError
from ltx_cache.remote import blob_path
from ltx_cache.signing import PublicKey, SigningKey

_FORM = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}


class EllipticKey(SigningKey):
    """An ECDSA key that makes signatures.

    Args:
        private: The key.
        file: The PEM file that it is in.

    Raises:
        BadKey: The format knows no keys on its curve.
    """

    def __init__(self, private: Any, file: Path) -> None:
        try:
            super().__init__(private)
        except ValueError:
            raise BadKey(
                f"{file} is a key on the curve {private.curve.name}, which the format doesn't know",
                hint="ltxbuild keygen --openssf FILE makes one on P-256",
            ) from None
        self._file = file

    def sign(self, data: bytes, blobs: Iterable[BlobRef] = ()) -> bytes:
        """The signature of a manifest and of the blobs that it names: JSON, with other bytes each time."""
        digests = [ref.sha256 for ref in (BlobRef.of(data), *blobs)]
        config = signing.Config().use_elliptic_key_signer(private_key=self._file)  # type: ignore[no-untyped-call]
        config.set_hashing_config(_Blobs(digests))
        with _scratch() as folder:
            file = folder / "signature"
            config.sign(Path(digests[0]), file)
            return file.read_bytes()


def verifies(key: PublicKey, data: bytes, signature: bytes) -> bool:
    """Whether this is the key's signature of the manifest with these bytes, and of any blobs.

    The blobs need not be here: they are compared with the digests in the manifest when they arrive.
    """
    digest = BlobRef.of(data).sha256
    with _scratch() as folder, redirect_stdout(sys.stderr):
        public, file = folder / "key.pem", folder / "signature"
        file.write_bytes(signature)
        try:
            public.write_bytes(_pem(key))
            config = verifying.Config().use_elliptic_key_verifier(public_key=public)  # type: ignore[no-untyped-call]
            config.set_hashing_config(_Blobs([digest])).set_ignore_unsigned_files(True)
            config.verify(Path(digest), file)
        except OSError:
            raise
        except Exception:  # the package passes on whatever its parts say about bytes that are no signature
            return False
    return True


class _Blobs(hashing.Config):
    """Takes the digests of files from their names, in place of reading them.

    Args:
        digests: Blobs that have to be among the files; all of them when none are named.
    """

    def __init__(self, digests: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._digests = digests

    def hash(
        self, model_path: hashing.PathLike, *, files_to_hash: Iterable[hashing.PathLike] | None = None
    ) -> manifest.Manifest:
        """The files; one that is no blob gets the path of one, and so doesn't compare equal."""
        digests = self._digests
        if files_to_hash is not None:
            digests = [Path(os.fsdecode(file)).name for file in files_to_hash]
        if not set(self._digests) <= set(digests):
            raise ValueError("it is the signature of another bundle")
        form = manifest.SerializationType.from_args(_FORM)
        items = [form.new_item(blob_path(name), Digest("sha256", bytes.fromhex(name))) for name in digests]
        return _Bundle(Path(os.fsdecode(model_path)).name, items, form)


class _Bundle(manifest.Manifest):
    """A list whose name counts: a blob of a signed bundle must not pass for a signed manifest."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, manifest.Manifest) or other.model_name != self.model_name:
            return False
        return bool(super().__eq__(other))  # type: ignore[operator]


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for the files by which the package takes keys and signatures."""
    try:
        with TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        raise LtxError(f"cannot use a temporary folder: {error}", hint="set TMPDIR to another one") from error


def _pem(key: PublicKey) -> bytes:
    public = forms.load_ssh_public_key(replace(key, comment="").line.encode())
    return public.public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
