"""Signatures in the format of OpenSSF model signing, against its own library and command."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadKey, NotTrusted, ToolMissing
from ltx_cache.folder_remote import FolderRemote
from ltx_cache.public_key import PublicKey
from ltx_cache.remote import Publication, blob_path, signature_path
from ltx_cache.signing import SigningKey, generate
from ltx_cache.store import Store
from ltx_cache.transfer import push
from ltx_cache.trust import Trust, trust

model_signing = pytest.importorskip("model_signing", reason="needs pip install 'ltxbuild[sign]'")

DATA, BLOBS = b"the bytes of a manifest", [BlobRef.of(b"executable"), BlobRef.of(b"weights")]
DIGEST = BlobRef.of(DATA).sha256
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `release.key` and `other.key`."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("release", "other"):
        generate(folder / f"{name}.key", f"{name} é", elliptic=True)
    return folder


@pytest.fixture(scope="module")
def key(folder: Path) -> SigningKey:
    """The release key."""
    return SigningKey.read(folder / "release.key")


@pytest.fixture(scope="module")
def signature(key: SigningKey) -> bytes:
    """Its signature."""
    return key.sign(DATA, BLOBS)


def statement(signature: bytes) -> dict[str, Any]:
    """What is signed."""
    payload = json.loads(signature)["dsseEnvelope"]["payload"]
    decoded: dict[str, Any] = json.loads(base64.b64decode(payload))
    return decoded


def test_it_lists_the_manifest_and_all_blobs(signature: bytes) -> None:
    """In the form of the specification, under their paths in a remote."""
    found = statement(signature)
    assert found["predicateType"] == "https://model_signing/signature/v1.0"
    listed = {file["name"]: file["digest"] for file in found["predicate"]["resources"]}
    digests = [DIGEST, *(ref.sha256 for ref in BLOBS)]
    assert listed == {f"blobs/{digest}": digest for digest in digests}


def test_what_is_signed_verifies(folder: Path, key: SigningKey, signature: bytes) -> None:
    """By the public key's line, too; not other bytes or a blob, and not by another key."""
    public = PublicKey.parse((folder / "release.key.pub").read_text())
    assert (public.kind, public.comment, public.id) == ("ecdsa-sha2-nistp256", "release é", key.public.id)
    assert public.verifies(DATA, signature)
    assert not public.verifies(DATA + b"x", signature)
    assert not public.verifies(b"weights", signature)
    assert not SigningKey.read(folder / "other.key").public.verifies(DATA, signature)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_others_check_a_copy_of_the_remote(folder: Path, key: SigningKey, tmp_path: Path) -> None:
    """Which has other bundles, too; each changed or lost blob is found."""
    store, root = Store(tmp_path / "store"), tmp_path / "remote"
    remote = FolderRemote(root)
    blobs = [store.put_bytes(data) for data in (b"executable", b"weights")]
    signed = Publication("two", DATA, {key.public.id: key.sign(DATA, blobs)})
    push(store, remote, signed, lambda data: blobs)
    push(store, remote, Publication("second", b"another manifest"), lambda data: ())
    path, pem = root / signature_path(DIGEST, key.public.id), str(folder / "release.pem")
    subprocess.run(["openssl", "pkey", "-in", folder / "release.key", "-pubout", "-out", pem], check=True)
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(root), "--ignore_unsigned_files"]
    done = subprocess.run(
        [*command, "--signature", path, "--public_key", pem], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Verification succeeded" in done.stdout) == (0, True), done

    def check() -> None:
        config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=pem)
        config.set_ignore_unsigned_files(True).verify(root, path)

    check()
    for digest in (DIGEST, blobs[1].sha256):
        blob = root / blob_path(digest)
        sound = blob.read_bytes()
        blob.write_bytes(bytes([sound[0] ^ 1]) + sound[1:])
        with pytest.raises(ValueError, match=digest):
            check()
        blob.write_bytes(sound)
    (root / blob_path(blobs[0].sha256)).unlink()
    with pytest.raises(ValueError):  # noqa: PT011  of each version in other words
        check()


def test_what_others_sign(folder: Path, key: SigningKey, tmp_path: Path) -> None:
    """Is taken if it lists the manifest and has its name; other folders' signatures are not."""
    for case, (name, path) in enumerate(
        ((DIGEST, blob_path(DIGEST)), ("model", blob_path(DIGEST)), (DIGEST, "bundle.json"))
    ):
        model = tmp_path / str(case) / name
        (model / path).parent.mkdir(parents=True)
        (model / path).write_bytes(DATA)
        config = model_signing.signing.Config().use_elliptic_key_signer(private_key=folder / "release.key")
        config.sign(model, model.parent / "model.sig")
        good = key.public.verifies(DATA, (model.parent / "model.sig").read_bytes())
        assert good is (case == 0)


def test_flipped_bits(key: SigningKey, signature: bytes) -> None:
    """In what is signed and in the signature itself."""
    envelope = json.loads(signature)["dsseEnvelope"]
    for field in (envelope["payload"], envelope["signatures"][0]["sig"]):
        sound = base64.b64decode(field)
        for position in range(0, 8 * len(sound), len(sound)):
            flipped = bytearray(sound)
            flipped[position // 8] ^= 1 << position % 8
            changed = signature.replace(field.encode(), base64.b64encode(flipped))
            assert not key.public.verifies(DATA, changed)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"{}",
        b"[]",
        b"null",
        b"[" * 100_000,
        bytes(64),
        b'{"verificationMaterial": {}}',
        b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "verificationMaterial": {}, '
        b'"dsseEnvelope": {"payload": "", "payloadType": "", "signatures": []}}',
    ],
)
def test_what_is_no_signature(data: bytes, key: SigningKey, capsys: pytest.CaptureFixture[str]) -> None:
    """One answer, and nothing on standard output."""
    assert key.public.verifies(DATA, data) is False
    assert capsys.readouterr().out == ""


def test_trust(folder: Path, key: SigningKey, signature: bytes, tmp_path: Path) -> None:
    """Keys of both kinds in one file; a wrong signature of a trusted key, another's, and none are refused."""
    plain = generate(tmp_path / "plain.key", "plain")
    both = tmp_path / "trusted"
    both.write_text(f"{plain.line}\n{key.public.line}\n")
    trusted = trust([str(both)])
    assert trusted.keys == (plain, key.public)
    given = {key.public.id: signature}
    assert trusted.check(DATA, given, "it") == given
    other = SigningKey.read(folder / "other.key").public
    for keys, signatures, message in (
        (trusted, {key.public.id: signature[:-9]}, "wrong signature"),
        (Trust((other,)), given, "by no key that you trust"),
        (trusted, {}, "is not signed"),
    ):
        with pytest.raises(NotTrusted, match=message):
            keys.check(DATA, signatures, "it")


def test_without_the_library(
    folder: Path, key: SigningKey, signature: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that installs it is in the hint; a right signature of another kind is enough without."""
    generate(tmp_path / "plain.key", "plain")
    plain = SigningKey.read(tmp_path / "plain.key")
    trusted = Trust((key.public, plain.public))
    both = {key.public.id: signature, plain.public.id: plain.sign(DATA)}
    monkeypatch.delattr("ltx_cache.openssf")
    monkeypatch.delitem(sys.modules, "ltx_cache.openssf")
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for work in (
        lambda: trusted.check(DATA, {key.public.id: signature}, "it"),
        lambda: SigningKey.read(folder / "release.key"),
    ):
        with pytest.raises(ToolMissing, match="model-signing") as caught:
            work()
        assert (caught.value.hint, caught.value.exit_code) == ("pip install 'ltxbuild[sign]'", 3)
    assert trusted.check(DATA, both, "it") == {plain.public.id: both[plain.public.id]}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
@pytest.mark.parametrize(("curve", "taken"), [("secp384r1", True), ("secp521r1", True), ("secp256k1", False)])
def test_keys_of_openssl(curve: str, taken: bool, tmp_path: Path) -> None:
    """Curves that the format knows sign; others are named."""
    path = tmp_path / "ec.key"
    command = ["openssl", "ecparam", "-name", curve, "-genkey", "-noout", "-out", str(path)]
    subprocess.run(command, check=True)
    if not taken:
        with pytest.raises(BadKey, match="curve"):
            SigningKey.read(path)
        return
    made = SigningKey.read(path)
    assert PublicKey.parse(made.public.line).verifies(DATA, made.sign(DATA, BLOBS))
