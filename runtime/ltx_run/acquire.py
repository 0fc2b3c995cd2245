"""Bundles from a remote into the cache: chosen, checked against trusted keys, and received as far as needed.

A bundle that came from a remote has a name in the cache, and keeps there where it came from and who signed it
(`Origin`). So it is found again without the network, and its signature can be checked each time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from ltx_cache.address import Address
from ltx_cache.blobref import BlobRef
from ltx_cache.errors import LtxError, UnknownBundle, UnknownRef
from ltx_cache.folder_remote import FolderRemote
from ltx_cache.names import checked_name
from ltx_cache.receive import Progress
from ltx_cache.store import Ref, Store
from ltx_cache.transfer import Transfer, pull
from ltx_cache.trust import Trust
from ltx_run import offers
from ltx_run.bundle import Bundle
from ltx_run.contents import contents_of, parsed
from ltx_run.errors import BundleInvalid
from ltx_run.offers import Offer

Variants = tuple[str, ...] | None
Select = Callable[[Bundle], Collection[str] | None]
"""The variants of a bundle that are wanted, None for all; raises `LtxError` if the bundle is of no use."""


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a bundle in the cache came from; kept with its name.

    Attributes:
        source: The address as it was given.
        state: State of the remote then, e.g. a commit.
        variants: Those that were asked for; None for all.
        signatures: Of the manifest, as hex digits, by the id of the key.
    """

    source: str
    state: str | None
    variants: Variants
    signatures: dict[str, str]


@dataclass(frozen=True)
class Order:
    """What is wanted from where.

    Attributes:
        source: The address.
        trust: Whose bundles are accepted.
        select: Says what of a bundle is wanted.
        name: Name in the cache; None for the bundle's own.
        offline: Whether to take only what was received before.
    """

    source: Address
    trust: Trust
    select: Select
    name: str | None = None
    offline: bool = False


@dataclass(frozen=True)
class Acquired:
    """A bundle that is in the cache.

    Attributes:
        name: Its name there.
        transfer: What travelled; None if nothing was asked.
        origin: Where it came from.
    """

    name: str
    transfer: Transfer | None
    origin: Origin


def acquire(store: Store, order: Order, progress: Progress | None = None) -> Acquired:
    """Make sure that the cache has what is wanted of a bundle.

    What is pinned and here already is not asked for again. Of several bundles at an address that names none,
    the only one that is of use is taken.

    Raises:
        UnknownBundle: There is none, or a choice.
        NotTrusted: No trusted key signed it.
        LtxError: It is of no use, or the remote or the cache can't be used.
    """
    local = isinstance(order.source.remote, FolderRemote)
    if order.source.pinned or (order.offline and not local):
        found = _remembered(store, order)
        if found is not None:
            return found
        if order.offline and not local:
            raise UnknownBundle(
                f"{order.source} was not received before, or not what is wanted of it",
                hint="run this once without --offline",
            )
    there, offer, variants = _chosen(store, order)
    name, remote = checked_name("bundle name", order.name or there), order.source.remote
    done = pull(store, remote, offer.manifest, contents_of(variants), progress)
    signatures = {key: data.hex() for key, data in offer.signatures.items()}
    known = _with_earlier(store, name, offer, variants)
    came = Origin(str(order.source), remote.state(), known, signatures)
    store.set_ref(name, offer.manifest, msgspec.to_builtins(came))
    return Acquired(name, done, came)


def origin(ref: Ref) -> Origin | None:
    """Where a bundle in the cache came from; None if it was made here."""
    with suppress(msgspec.ValidationError):
        return msgspec.convert(ref.summary, Origin)
    return None


def part(ref: Ref) -> Callable[[bytes], Collection[BlobRef]] | None:
    """What reads the manifest of a bundle of which some variants were received; None if all were."""
    known = origin(ref)
    return None if known is None or known.variants is None else contents_of(known.variants)


def whole(store: Store, name: str) -> BlobRef:
    """The manifest of a bundle in the cache, to be handed on.

    Raises:
        BundleInvalid: Some of its variants were not received.
        LtxError: There is no such bundle, or its ref is damaged.
    """
    ref = store.ref_with_summary(name)
    known = origin(ref)
    if known is not None and known.variants is not None:
        here = ", ".join(known.variants)
        advice = f"receive all of it: ltxbuild pull '{known.source}' --as {name}"
        raise BundleInvalid(f"of bundle {name} only {here} was received", hint=advice)
    return ref.manifest


def local_name(source: Address) -> str:
    """The name in the cache of a bundle that is run by its address; it hides no bundle of another name.

    >>> from ltx_cache.address import address
    >>> local_name(address("file:///mnt/Bundles#tiny"))
    'mnt-bundles-tiny.25c5389d'
    """
    text = str(source)
    readable = re.sub(r"[^a-z0-9._-]+", "-", text.partition("://")[2].lower()).strip("-._")[-100:]
    return f"{readable.lstrip('-._') or 'bundle'}.{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _remembered(store: Store, order: Order) -> Acquired | None:
    """What was received from this very address before, if all that is wanted is here."""
    for ref in store.refs():
        known = origin(ref)
        if known is None or known.source != str(order.source) or not store.has(ref.manifest):
            continue
        data = store.open(ref.manifest).read_bytes()
        signatures = {key: bytes.fromhex(text) for key, text in known.signatures.items()}
        order.trust.check(data, signatures, known.source)
        variants = order.select(parsed(data))
        if all(store.has(blob) for blob in contents_of(variants)(data)):
            if order.name not in (None, ref.name):
                store.set_ref(checked_name("bundle name", order.name or ""), ref.manifest, ref.summary)
            return Acquired(order.name or ref.name, None, known)
    return None


def _with_earlier(store: Store, name: str, offer: Offer, variants: Variants) -> Variants:
    """The variants that the cache has under a name from now on: those that came earlier stay."""
    try:
        ref = store.ref_with_summary(name)
    except UnknownRef:
        return variants
    if ref.manifest != offer.manifest or variants is None:
        return variants
    earlier = origin(ref)
    if earlier is None or earlier.variants is None:
        return None
    return tuple(sorted({*earlier.variants, *variants}))


def _chosen(store: Store, order: Order) -> tuple[str, Offer, Variants]:
    """The bundle that is named, or the only one of use; and what is wanted of it."""
    names = offers.names(order.source)
    if len(names) == 1:
        return _useful(store, order, names[0])
    useful, reasons = list[tuple[str, Offer, Variants]](), list[str]()
    for name in names:
        try:
            useful.append(_useful(store, order, name))
        except LtxError as error:
            reasons.append(f"{name}: {error.message}")
    url = order.source.remote.url
    if not useful:
        raise UnknownBundle(
            "\n  ".join([f"none of the {len(names)} bundles at {url} can be used:", *reasons])
        )
    if len(useful) > 1:
        listed = " or ".join(f"'{url}#{name}'" for name, _, _ in useful)
        raise UnknownBundle(f"{url} has {len(useful)} bundles of use", hint=f"name one: {listed}")
    return useful[0]


def _useful(store: Store, order: Order, name: str) -> tuple[str, Offer, Variants]:
    found = offers.offer(store, order.source, name, order.trust)
    variants = order.select(found.bundle)
    every = variants is None or set(variants) == set(found.bundle.variants)
    return name or found.bundle.name, found, None if every else tuple(sorted(variants or ()))
