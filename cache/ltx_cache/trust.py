"""Whose bundles are accepted from a remote.

The bytes of a manifest are checked before they are parsed; the digests in it cover the rest. Trusted keys are
lines of `trusted-keys` in the user's settings (`~/.config/ltxbuild`), and those that a command names.

Example:
    >>> Trust(()).check(b"manifest", {}, "file:///mnt/bundles#tiny")
    Traceback (most recent call last):
    ...
    ltx_cache.errors.NotTrusted: file:///mnt/bundles#tiny is not signed
      ...
    >>> Trust((), allow_unsigned=True).check(b"manifest", {}, "file:///mnt/bundles#tiny")
    {}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ltx_cache.errors import BadKey, NotTrusted, ToolMissing
from ltx_cache.files import reading
from ltx_cache.home import config_home
from ltx_cache.public_key import KIND, KINDS, PublicKey, fingerprint
from ltx_cache.remote import Remote, TooLarge

ALLOW = "--allow-unsigned"
Signatures = Mapping[str, bytes]
"""Signatures by the id of the key."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Keys whose signatures are accepted.

    Attributes:
        keys: The keys.
        allow_unsigned: Whether bundles without such a signature are accepted too.
    """

    keys: tuple[PublicKey, ...]
    allow_unsigned: bool = False

    def offered(self, remote: Remote, manifest: str) -> dict[str, bytes]:
        """Signatures of a manifest at a remote; of keys that aren't trusted the ids alone.

        Raises:
            LtxError: The remote can't be read.
        """
        trusted = {key.id for key in self.keys}
        signers = remote.signers(manifest) if trusted or not self.allow_unsigned else []
        return {key: _signature(remote, manifest, key) if key in trusted else b"" for key in signers}

    def check(self, data: bytes, signatures: Signatures, where: str) -> dict[str, bytes]:
        """Compare a manifest with its signatures.

        Args:
            data: Its bytes; they are not parsed.
            signatures: What is said to be signatures of them.
            where: What to call the bundle in messages.

        Returns:
            The signatures that are right and of trusted keys; none only if unsigned bundles are accepted.

        Raises:
            NotTrusted: There is none.
            ToolMissing: A package is not installed that would be needed to check it.
        """
        candidates = [key for key in self.keys if key.id in signatures]
        good, lacking = dict[str, bytes](), None
        for key in candidates:
            try:
                if key.verifies(data, signatures[key.id]):
                    good[key.id] = signatures[key.id]
            except ToolMissing as error:
                lacking = error
        if not good and not self.allow_unsigned:
            raise lacking or _refusal(where, candidates, signatures)
        return good


def trust(named: Iterable[str], *, allow_unsigned: bool = False) -> Trust:
    """Trust in the keys of the user's settings and in those named on a command line.

    Args:
        named: Files of public keys, or keys as lines.
        allow_unsigned: Whether to accept bundles without a signature.

    Raises:
        BadKey: One is no public key.
        FileNotReadable: A file can't be read.
        NoHome: The user's settings can't be found.
    """
    path = trusted_keys()
    keys = _read(path) if path.exists() else []
    for text in named:
        keys += [PublicKey.parse(text)] if text.strip().partition(" ")[0] in KINDS else _read(Path(text))
    return Trust(tuple(dict.fromkeys(keys)), allow_unsigned)


def _signature(remote: Remote, manifest: str, key: str) -> bytes:
    """The signature of a key; nothing in place of what is none, which shall not hide those of other keys."""
    try:
        return remote.signature(manifest, key) or b""
    except TooLarge:
        return b""


def trusted_keys() -> Path:
    """The file of trusted keys; it need not exist.

    Raises:
        NoHome: The user has no home folder.
    """
    return config_home() / "trusted-keys"


def _read(path: Path) -> list[PublicKey]:
    """The keys of a file: one per line; lines that begin with # say something to people."""
    with reading(path):
        data = path.read_bytes()
    try:
        lines = (line.strip() for line in data.decode().splitlines())
        return [PublicKey.parse(line) for line in lines if line and not line.startswith("#")]
    except (BadKey, UnicodeDecodeError) as error:
        reason = error.message if isinstance(error, BadKey) else "it is no text"
        raise BadKey(f"{path}: {reason}", hint=f"each line has the form: {KIND} AAAA... name") from None


def _refusal(where: str, candidates: list[PublicKey], signatures: Signatures) -> NotTrusted:
    if candidates:
        wrong = f"{where} has a wrong signature of {candidates[0].fingerprint} ({candidates[0].comment})"
        return NotTrusted(wrong, hint=f"it was changed after it was signed: don't use it, or {ALLOW}")
    if signatures:
        others = ", ".join(map(fingerprint, signatures))
        message = f"{where} is signed, but by no key that you trust: {others}"
        return NotTrusted(message, hint=f"--trust KEY.pub, or add the key to {trusted_keys()}")
    advice = f"accept it once with {ALLOW}, or ask its maker to sign it: ltxbuild push --sign KEY"
    return NotTrusted(f"{where} is not signed", hint=advice)
