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
from ltx_cache.errors import FileNotReadable, LtxError, NotTrusted, RemoteFailed, UnknownBundle, UnknownRef
from ltx_cache.folder_remote import FolderRemote
from ltx_cache.names import checked_name
from ltx_cache.receive import Progress
from ltx_cache.remote import Remote
from ltx_cache.store import Ref, Store
from ltx_cache.transfer import Transfer, pull
from ltx_cache.trust import Trust
from ltx_run.contents import contents_of, parsed
from ltx_run.errors import BundleInvalid
from ltx_run.offers import Choice, Offer, Select, Variants, chosen


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

    What is pinned and here already is not asked for again, unless a signature is lacking. Of several bundles
    at an address that names none, the only one that is of use is taken. Offline, a folder is still read; if
    it isn't there, what came from it before is taken.

    Raises:
        UnknownBundle: There is none, or a choice.
        NotTrusted: No trusted key signed it.
        LtxError: It is of no use, or the remote or the cache can't be used.
    """
    remote, refusal = order.source.remote, None
    if order.offline and not isinstance(remote, FolderRemote):
        found = _remembered(store, order)
        if found is None:
            raise UnknownBundle(
                f"{order.source} was not received before, or not what is wanted of it",
                hint="run this once without --offline",
            )
        return found
    if order.source.pinned:
        try:
            found = _remembered(store, order)
        except NotTrusted as error:
            found, refusal = None, error  # the remote may have a signature that was not received
        if found is not None:
            return found
    try:
        choice = chosen(store, order.source, order.trust, order.select)
    except (FileNotReadable, RemoteFailed, UnknownBundle) as error:
        if refusal is not None:
            raise refusal from None
        found = _remembered(store, order) if order.offline and _unplugged(remote, error) else None
        if found is None:
            raise
        return found
    return _received(store, order, choice, progress)


def _unplugged(folder: Remote, error: LtxError) -> bool:
    """Whether a folder can't be read. Of a disk that isn't there, an empty folder may be left."""
    return not isinstance(error, UnknownBundle) or not folder.names()


def _received(store: Store, order: Order, choice: Choice, progress: Progress | None) -> Acquired:
    """Receive what the cache lacks of a bundle, and name it."""
    there, offer, variants = choice
    name, remote = checked_name("bundle name", order.name or there), order.source.remote
    done = pull(store, remote, offer.manifest, contents_of(variants), progress)
    signatures = {key: data.hex() for key, data in offer.signatures.items()}
    came = _with_earlier(store, name, offer, Origin(str(order.source), remote.state(), variants, signatures))
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
    """What was received from this very address before, if all that is wanted is here and trusted.

    What has the wanted name goes first: under another, an older bundle may have been kept.

    Raises:
        NotTrusted: It is here, but no trusted key signed it, as far as it was received with signatures.
        LtxError: It is of no use, or the cache can't be read.
    """
    refusal: NotTrusted | None = None
    for ref in sorted(store.refs(), key=lambda ref: ref.name != order.name):
        known = origin(ref)
        if known is None or known.source != str(order.source) or not store.has(ref.manifest):
            continue
        data = store.open(ref.manifest).read_bytes()
        signatures = {key: bytes.fromhex(text) for key, text in known.signatures.items()}
        try:
            order.trust.check(data, signatures, known.source)
        except NotTrusted as error:
            refusal = refusal or error
            continue
        variants = order.select(parsed(data))
        if all(store.has(blob) for blob in contents_of(variants)(data)):
            if order.name not in (None, ref.name):
                store.set_ref(checked_name("bundle name", order.name or ""), ref.manifest, ref.summary)
            return Acquired(order.name or ref.name, None, known)
    if refusal is not None:
        raise refusal
    return None


def _with_earlier(store: Store, name: str, offer: Offer, came: Origin) -> Origin:
    """What the cache knows of a bundle from now on: variants and signatures that came earlier stay."""
    try:
        ref = store.ref_with_summary(name)
    except UnknownRef:
        return came
    if ref.manifest != offer.manifest:
        return came
    earlier = origin(ref)
    if earlier is None:
        return msgspec.structs.replace(came, variants=None)
    both = came.variants is not None and earlier.variants is not None
    variants = tuple(sorted({*(earlier.variants or ()), *(came.variants or ())})) if both else None
    return msgspec.structs.replace(
        came, variants=variants, signatures={**earlier.signatures, **came.signatures}
    )
