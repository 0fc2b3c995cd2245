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
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives import serialization as forms
from model_signing import hashing, manifest, signing, verifying
from model_signing._hashing.hashing import Digest  # public functions take it, but no public name has it

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import LtxError
from ltx_cache.remote import blob_path

_FORM = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}


def sign(file: Path, data: bytes, blobs: Iterable[BlobRef]) -> bytes:
    """The signature of a manifest and of the blobs that it names: JSON, with other bytes each time.

    Args:
        file: The PEM file of the key.
        data: The manifest.
        blobs: What it names.
    """
    digests = [ref.sha256 for ref in (BlobRef.of(data), *blobs)]
    config = signing.Config().use_elliptic_key_signer(private_key=file)  # type: ignore[no-untyped-call]
    config.set_hashing_config(_Blobs(digests))
    with _scratch() as folder:
        signature = folder / "signature"
        config.sign(Path(digests[0]), signature)
        return signature.read_bytes()


def verifies(line: str, data: bytes, signature: bytes) -> bool:
    """Whether this is the key's signature of the manifest with these bytes, and of any blobs.

    The blobs need not be here: they are compared with the digests in the manifest when they arrive.

    Args:
        line: The public key as OpenSSH writes it, without a comment.
        data: The manifest.
        signature: What is said to be its signature.
    """
    digest = BlobRef.of(data).sha256
    with _scratch() as folder, redirect_stdout(sys.stderr):
        public, file = folder / "key.pem", folder / "signature"
        file.write_bytes(signature)
        try:
            public.write_bytes(_pem(line))
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


def _pem(line: str) -> bytes:
    public = forms.load_ssh_public_key(line.encode())
    return public.public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
