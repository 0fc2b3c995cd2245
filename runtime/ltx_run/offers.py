"""The bundles that a remote offers: found by name or digest, and checked before they are parsed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ltx_cache.address import Address
from ltx_cache.blobref import BlobRef
from ltx_cache.errors import LtxError, UnknownBundle
from ltx_cache.receive import fetch
from ltx_cache.remote import checked_manifest
from ltx_cache.store import Store
from ltx_cache.trust import Trust
from ltx_run.bundle import Bundle
from ltx_run.contents import parsed

Variants = tuple[str, ...] | None
Select = Callable[[Bundle], Collection[str] | None]
"""The variants of a bundle that are wanted, None for all; raises `LtxError` if the bundle is of no use."""


@dataclass(frozen=True)
class Offer:
    """A bundle at a remote.

    Attributes:
        manifest: Its manifest, which the store has.
        bundle: What the manifest says.
        signatures: Those of trusted keys, by the id of the key.
    """

    manifest: BlobRef
    bundle: Bundle
    signatures: dict[str, bytes]


Choice = tuple[str, Offer, Variants]
"""A bundle by its name there, what is offered under it, and what is wanted of it."""


def chosen(store: Store, source: Address, trust: Trust, select: Select) -> Choice:
    """The bundle that is named, or the only one of use; and what is wanted of it.

    Args:
        store: Where manifests go.
        source: The remote.
        trust: Whose bundles are accepted.
        select: Says what of a bundle is wanted.

    Raises:
        UnknownBundle: There is none, or a choice.
        NotTrusted: No trusted key signed it.
        LtxError: It is of no use, or the remote can't be read.
    """
    there = names(source)
    if len(there) == 1:
        return _useful(store, source, there[0], trust, select)
    useful, reasons = list[Choice](), list[str]()
    for name in there:
        try:
            useful.append(_useful(store, source, name, trust, select))
        except LtxError as error:
            reasons.append(f"{name}: {error.message}")
    url = source.remote.url
    if not useful:
        raise UnknownBundle(
            "\n  ".join([f"none of the {len(there)} bundles at {url} can be used:", *reasons])
        )
    if len(useful) > 1:
        listed = " or ".join(f"'{url}#{name}'" for name, _, _ in useful)
        raise UnknownBundle(f"{url} has {len(useful)} bundles of use", hint=f"name one: {listed}")
    return useful[0]


def _useful(store: Store, source: Address, name: str, trust: Trust, select: Select) -> Choice:
    found = offer(store, source, name, trust)
    variants = select(found.bundle)
    every = variants is None or set(variants) == set(found.bundle.variants)
    return name or found.bundle.name, found, None if every else tuple(sorted(variants or ()))


def names(source: Address) -> list[str]:
    """Names of the bundles that an address may mean; empty for the one that is pinned by digest.

    Raises:
        UnknownBundle: There are none, or not the one that is named.
        LtxError: The remote can't be read.
    """
    if source.digest is not None:
        return [""]
    if source.name is not None:
        return [source.name]
    found = source.remote.names()
    if not found:
        raise UnknownBundle(f"{source.remote.url} has no bundles")
    return found


def offer(store: Store, source: Address, name: str, trust: Trust) -> Offer:
    """Receive a manifest, compare it with its digest and its signatures, and parse it.

    Args:
        store: Where the manifest goes.
        source: The remote.
        name: One of `names`.
        trust: Whose bundles are accepted.

    Raises:
        UnknownBundle: There is no such bundle.
        NotTrusted: No trusted key signed it; it was not parsed.
        LtxError: It is damaged or of another version, or the remote can't be read.
    """
    remote, where = source.remote, f"{source.remote.url}#{name}" if name else str(source)
    manifest = checked_manifest(remote, where, _manifest(source, name))
    fetch(store, remote, [manifest])
    data = store.open(manifest).read_bytes()
    signatures = trust.check(data, trust.offered(remote, manifest.sha256), where)
    return Offer(manifest, parsed(data), signatures)


def _manifest(source: Address, name: str) -> BlobRef:
    remote = source.remote
    if name:
        manifest = remote.read(name)
        if manifest is None:
            known = ", ".join(remote.names()) or "none"
            raise UnknownBundle(f"{remote.url} has no bundle {name}", hint=f"it has: {known}")
        return manifest
    digest = source.digest or ""
    sizes = remote.sizes([digest])
    if digest not in sizes:
        raise UnknownBundle(f"{remote.url} has no blob {digest}")
    return BlobRef(digest, sizes[digest])
