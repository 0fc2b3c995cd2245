"""Keys and signatures, against OpenSSL, OpenSSH and the published vectors."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ltx_cache.errors import BadKey, FileNotReadable, ToolMissing
from ltx_cache.folder_remote import FolderRemote
from ltx_cache.public_key import PublicKey, fingerprint
from ltx_cache.remote import SIGNATURE_LIMIT, signature_path
from ltx_cache.signing import SigningKey, generate
from ltx_cache.trust import Trust, trust

DATA = b"the bytes of a manifest"
# RFC 8032, section 7.1, tests 1 and 2: public key, message, signature.
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    """A new key in a file."""
    generate(tmp_path / "release.key", "maker")
    return SigningKey.read(tmp_path / "release.key")


@pytest.mark.parametrize(("public", "message", "signature"), VECTORS)
def test_published_vectors(public: str, message: str, signature: str) -> None:
    """Right signatures are right; one flipped bit anywhere is not."""
    key, data, given = PublicKey(bytes.fromhex(public)), bytes.fromhex(message), bytes.fromhex(signature)
    assert key.verifies(data, given)
    assert not key.verifies(data + b"x", given)
    for position in range(0, 512, 37):
        flipped = bytearray(given)
        flipped[position // 8] ^= 1 << position % 8
        assert not key.verifies(data, bytes(flipped))
    assert not key.verifies(data, given[:-1])
    assert not key.verifies(data, b"")


def test_what_is_signed_verifies(key: SigningKey) -> None:
    """By the public key's line, too."""
    public = PublicKey.parse(key.public.line)
    assert public.verifies(DATA, key.sign(DATA))
    assert not public.verifies(DATA[::-1], key.sign(DATA))


def test_the_signing_key_is_for_its_owner(tmp_path: Path) -> None:
    """Nobody else may read it, and no key is written over."""
    public = generate(tmp_path / "keys" / "a.key", "maker")
    assert (tmp_path / "keys" / "a.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys" / "a.key.pub").read_text() == public.line + "\n"
    with pytest.raises(BadKey, match="exists"):
        generate(tmp_path / "keys" / "a.key", "maker")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_agrees(key: SigningKey, tmp_path: Path) -> None:
    """It reads our key and accepts our signature of the bare bytes."""
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "signature").write_bytes(key.sign(DATA))
    arguments = ("-inkey", "release.key", "-rawin", "-in", "data", "-sigfile", "signature")
    command = ["openssl", "pkeyutl", "-verify", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "Verified Successfully" in done.stdout, done.stderr
    (tmp_path / "data").write_bytes(DATA + b"x")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode != 0


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_openssh_agrees(key: SigningKey, tmp_path: Path) -> None:
    """On fingerprints; and its keys sign here, unless they are under a passphrase or of another kind."""
    shown = subprocess.check_output(["ssh-keygen", "-l", "-f", "release.key.pub"], cwd=tmp_path, text=True)
    assert shown.split()[1] == key.public.fingerprint == fingerprint(key.public.id)
    for name, kind, passphrase in (
        ("plain", "ed25519", ""),
        ("locked", "ed25519", "abcde"),
        ("ec", "ecdsa", ""),
        ("rsa", "rsa", ""),
    ):
        command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "me", "-f", name]
        subprocess.run(command, cwd=tmp_path, check=True)
    made = SigningKey.read(tmp_path / "plain")
    assert PublicKey.parse((tmp_path / "plain.pub").read_text()).verifies(DATA, made.sign(DATA))
    for name, message in (("locked", "."), ("ec", "no PEM file"), ("rsa", "another kind")):
        with pytest.raises(BadKey, match=message):
            SigningKey.read(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_files_that_are_no_signing_keys(text: str, tmp_path: Path) -> None:
    """They are named."""
    (tmp_path / "key").write_text(text)
    with pytest.raises(BadKey, match="key is no signing key"):
        SigningKey.read(tmp_path / "key")
    with pytest.raises(FileNotReadable):
        SigningKey.read(tmp_path / "nothing")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        f"ecdsa-sha2-nistp256 {PublicKey(bytes(32)).line.split()[1]} me",
        "ssh-rsa AAAAB3NzaC1yc2E= me",
        "ssh-ed25519 !!!! me",
        "\x00",
        "é é é",
    ],
)
def test_lines_that_are_no_public_keys(line: str) -> None:
    """One error."""
    with pytest.raises(BadKey, match="no Ed25519 or ECDSA public key"):
        PublicKey.parse(line)


def test_a_signature_that_is_none_hides_no_other(tmp_path: Path) -> None:
    """Somebody has put something large in the place of one of two keys' signatures."""
    first, second = (generate(tmp_path / name, name) for name in ("first", "second"))
    remote, manifest = FolderRemote(tmp_path / "remote"), "a" * 64
    for public, content in ((first, bytes(SIGNATURE_LIMIT + 1)), (second, b"signature")):
        path = tmp_path / "remote" / signature_path(manifest, public.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    offered = Trust((first, second)).offered(remote, manifest)
    assert offered == {first.id: b"", second.id: b"signature"}


def test_trusted_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: SigningKey) -> None:
    """Those of the user's file, and those named as files or as lines; comments and blank lines aside."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert trust(()) == Trust(())
    other = generate(tmp_path / "other.key", "other")
    (tmp_path / "config" / "ltxbuild").mkdir(parents=True)
    (tmp_path / "config" / "ltxbuild" / "trusted-keys").write_text(f"# people\n\n{other.line}\n")
    assert trust(()).keys == (other,)
    named = trust([str(tmp_path / "release.key.pub"), other.line]).keys
    assert named == (other, PublicKey(key.public.raw, "maker"))
    (tmp_path / "config" / "ltxbuild" / "trusted-keys").write_text("oops\n")
    with pytest.raises(BadKey, match=r"trusted-keys: 'oops' is no"):
        trust(())
    (tmp_path / "config" / "ltxbuild" / "trusted-keys").unlink()
    with pytest.raises(FileNotReadable):
        trust([str(tmp_path / "nothing.pub")])


def test_a_file_named_like_a_kind_of_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: SigningKey
) -> None:
    """A line has the kind as its first word; anything else is a file."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    Path("ssh-ed25519.pub").write_text(key.public.line)
    assert trust(["ssh-ed25519.pub"]).keys == trust([f" {key.public.line}"]).keys == (key.public,)
    with pytest.raises(BadKey, match="no Ed25519"):
        trust(["ssh-ed25519 AAAA"])


def test_without_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that installs it is in the hint; a key can be read and named without."""
    public = PublicKey(bytes(32))
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    assert PublicKey.parse(public.line) == public
    with pytest.raises(ToolMissing) as caught:
        public.verifies(DATA, bytes(64))
    assert (caught.value.hint, caught.value.exit_code) == ("pip install 'ltxbuild[hub]'", 3)
