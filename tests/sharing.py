"""What tests of shared bundles have in common: a bundle of two variants, keys, and pushes."""

from __future__ import annotations

from pathlib import Path

import msgspec
from bundles import fake_bundle
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ltx_cache.blobref import BlobRef
from ltx_cache.remote import Publication, Remote
from ltx_cache.signing import SigningKey
from ltx_cache.store import Store
from ltx_cache.transfer import Transfer, push
from ltx_run import bundle as manifest
from ltx_run.contents import contents
from ltx_run.plan import Run

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(b"k" * 32), "maker")
STRANGER = SigningKey(Ed25519PrivateKey.from_private_bytes(b"s" * 32), "stranger")


def two_variants(store: Store, name: str = "two", platform: str = "cpu") -> manifest.Bundle:
    """A bundle whose variants `small` and `large` have a program each, and share all else."""
    bundle = fake_bundle(store, name, platform=platform)
    (program,) = bundle.programs.values()
    programs = {}
    for variant in ("small", "large"):
        code = store.put_bytes(f"{name} {variant} executable".encode())
        blob = manifest.Blob(sha256=code.sha256, size=code.size)
        programs[variant] = msgspec.structs.replace(program, executable=blob)
    plans = {variant: (Run(program=variant, inputs=(), outputs=()),) for variant in programs}
    default = bundle.variants["default"]
    variants = {variant: msgspec.structs.replace(default, plan=plan) for variant, plan in plans.items()}
    return msgspec.structs.replace(bundle, variants=variants, programs=programs)


def share(store: Store, remote: Remote, bundle: manifest.Bundle, key: SigningKey | None = KEY) -> Transfer:
    """Push a bundle under its name, signed unless there is no key."""
    data = manifest.encode(bundle)
    signatures = {key.public.id: key.sign(data)} if key else {}
    remote.create(private=False)
    return push(store, remote, Publication(bundle.name, data, signatures), contents)


def digest(bundle: manifest.Bundle) -> str:
    """The digest of its manifest."""
    return BlobRef.of(manifest.encode(bundle)).sha256


def public_file(folder: Path, key: SigningKey = KEY) -> Path:
    """A file with a public key."""
    path = folder / "maker.pub"
    path.write_text(key.public.line + "\n")
    return path
