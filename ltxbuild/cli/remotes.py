"""`ltxbuild push` and `pull`: bundles between the cache and a remote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ltx_cache.address import address
from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadAddress
from ltx_cache.home import home
from ltx_cache.remote import Publication, Remote
from ltx_cache.store import Store
from ltx_cache.transfer import Transfer, push
from ltx_cache.trust import Trust
from ltx_run.acquire import Acquired, Order, acquire, whole
from ltx_run.bundle import Bundle
from ltx_run.console import hint, human_bytes, say, transfer_bar
from ltx_run.contents import contents, platforms
from ltx_run.errors import ProgramMismatch
from ltx_run.offers import Select
from ltx_run.offline import refuse_connections
from ltxbuild.cli.options import json_option
from ltxbuild.cli.trusting import offline_option, trust_options

if TYPE_CHECKING:
    from ltx_cache.signing import SigningKey

REMOTE = "REMOTE[#NAME]"


@click.command("push")
@click.argument("ref")
@click.argument("remote", metavar=REMOTE)
@click.option("--private", is_flag=True, help="Make the repository a private one, if it is not there yet.")
@click.option(
    "--sign",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="KEY",
    help="Sign the bundle with this key (see `ltxbuild keygen`).",
)
@json_option
def push_command(ref: str, remote: str, private: bool, sign: Path | None, as_json: bool) -> None:
    """Send bundle REF to a remote, under its own name or NAME; only the blobs that it lacks are sent.

    A remote is file:///FOLDER or hf://ORG/REPO[@BRANCH], a model repository on the Hugging Face Hub. It holds
    any number of bundles, and those that share weights share them there too. What it has is described in its
    README.md.

    \b
    Examples:
      ltxbuild push cpu-tiny file:///mnt/bundles
      ltxbuild push cpu-tiny hf://org/repo --private --sign release.key
      ltxbuild push cpu-tiny 'hf://org/repo@next#cpu-tiny-2'
    """
    from ltx_cache.signing import SigningKey
    from ltxbuild.bundles.card import card
    from ltxbuild.bundles.keys import keys

    store, to = Store(home()), address(remote)
    if to.digest is not None:
        raise BadAddress(f"{to} pins a bundle, it can't be pushed to", hint="write #NAME, or nothing")
    key = SigningKey.read(sign) if sign else None
    with store.in_use(), transfer_bar() as progress:
        data = store.open(whole(store, ref)).read_bytes()
        to.remote.create(private=private)
        signatures = {key.public.id: _signature(to.remote, key, data)} if key else {}
        publication = Publication(to.name or ref, data, signatures, card(to.remote.url))
        done = push(store, to.remote, publication, contents, keys(store, data), progress)
    _report("sent", publication.name, done, to.remote.state(), as_json=as_json)
    if key is not None:
        say(f"signed by {key.public.fingerprint}")
    hint(f"ltxbuild pull '{to.remote.url}#{publication.name}'")


@click.command("pull")
@click.argument("remote", metavar=REMOTE)
@click.option("--as", "name", metavar="NAME", help="Name of the bundle in the cache, in place of its own.")
@click.option(
    "--variant", "variants", multiple=True, metavar="NAME", help="Receive this variant alone (repeatable)."
)
@click.option("--platform", metavar="NAME", help="Take the bundle for this platform: cpu, cuda, tpu, neuron.")
@trust_options
@offline_option
@json_option
def pull_command(
    remote: str,
    name: str | None,
    variants: tuple[str, ...],
    platform: str | None,
    trust: Trust,
    offline: bool,
    as_json: bool,
) -> None:
    """Receive a bundle from a remote; its signature is checked and every blob verified.

    Only what the cache lacks is received, and an interrupted pull goes on where it stopped. REMOTE is
    file:///FOLDER or hf://ORG/REPO[@REVISION]; #NAME names one of several bundles there, and #sha256:DIGEST
    pins one.

    \b
    Examples:
      ltxbuild pull hf://org/repo
      ltxbuild pull 'hf://org/repo@v2#cpu-tiny' --as cpu-tiny-2 --variant wide
      ltxbuild pull file:///mnt/bundles --platform tpu --trust release.key.pub
    """
    if offline:
        refuse_connections()
    store = Store(home())
    order = Order(address(remote), trust, _selecting(variants, platform), name, offline)
    with store.in_use(create=True), transfer_bar() as progress:
        found = acquire(store, order, progress)
    _tell(store, found, as_json=as_json)
    hint(f'ltx-run {found.name} --prompt "..." -o out.mp4')


def _signature(remote: Remote, key: SigningKey, data: bytes) -> bytes:
    """The one that is there, if it is right: a new one may have other bytes, and nothing has changed."""
    earlier = remote.signature(BlobRef.of(data).sha256, key.public.id)
    if earlier is not None and key.public.verifies(data, earlier):
        return earlier
    return key.sign(data, contents(data))


def _selecting(variants: tuple[str, ...], platform: str | None) -> Select:
    """What is wanted of a bundle: these variants, if it is for that platform."""

    def select(bundle: Bundle) -> tuple[str, ...] | None:
        if platform is not None and platform not in platforms(bundle):
            found = ", ".join(platforms(bundle))
            raise ProgramMismatch(f"bundle {bundle.name} is for {found}, not for {platform}")
        if not variants:
            return None
        from ltx_run.job import choose_variant

        return tuple(choose_variant(bundle, variant) for variant in variants)

    return select


def _tell(store: Store, found: Acquired, *, as_json: bool) -> None:
    if found.transfer is not None:
        _report("received", found.name, found.transfer, found.origin.state, as_json=as_json)
    else:
        say(f"{found.name} was received before")
        if as_json:
            click.echo(json.dumps({"bundle": store.ref(found.name).sha256, "name": found.name}, indent=2))
    if not found.origin.signatures:
        say("it is not signed by a trusted key")


def _report(verb: str, name: str, done: Transfer, state: str | None, *, as_json: bool) -> None:
    if as_json:
        counts = {"blobs": done.blobs, "bytes": done.size, "total": done.total}
        found = {"bundle": done.manifest.sha256, "name": name, "commit": state, **counts}
        click.echo(json.dumps(found, indent=2))
    size = f"{human_bytes(done.size)} of {human_bytes(done.total)}"
    at = f" at commit {state[:12]}" if state else ""
    say(f"{verb} {name} {done.manifest.sha256[:12]}{at}: {done.blobs} blobs, {size}")
