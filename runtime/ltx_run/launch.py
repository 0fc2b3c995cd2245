"""From requests to a report: what `ltx-run` does once it knows what is wanted.

What a mistake in the request doesn't need is imported late: jaxlib takes longer than all checks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import click
import msgspec

from ltx_cache.address import address, is_address
from ltx_cache.home import home
from ltx_cache.store import Store
from ltx_cache.trust import Trust
from ltx_run import prompts
from ltx_run.acquire import Order, acquire, local_name
from ltx_run.bundle import Bundle
from ltx_run.cluster import Place
from ltx_run.console import human_bytes, say, transfer_bar
from ltx_run.contents import needed
from ltx_run.contexts import PromptCache
from ltx_run.demands import check_fingerprints, needed_programs, substitutes
from ltx_run.errors import VideosFailed
from ltx_run.job import Batch, choose_variant, identity, prepare
from ltx_run.lookup import find, in_use
from ltx_run.peers import ALONE, Peers
from ltx_run.phases import traced
from ltx_run.report import Report
from ltx_run.request import Request, check_requests


@dataclass(frozen=True, slots=True)
class Options:
    """How to run, whatever is made.

    Attributes:
        prompt_cache: Whether results of prompts are looked up and kept.
        paranoid: Whether to hash all that is loaded.
        quiet: Whether to print errors alone.
        trust: Whose bundles are accepted from a remote.
        offline: Whether to take what was received from a remote before.
        place: Which of several processes this is; None if it is alone.
        allow_compile: Whether programs may be compiled here whose executables don't fit.
        profile: Folder for a trace of the run; None for none.
    """

    prompt_cache: bool
    paranoid: bool
    quiet: bool
    trust: Trust
    offline: bool
    place: Place | None
    allow_compile: bool
    profile: Path | None


def read(path: Path, folder: str | None, defaults: Request) -> list[Request]:
    """The requests of a file of prompts, whose outputs go to a folder.

    Raises:
        LtxError: See `ltx_run.prompts.read`.
    """
    return prompts.read(path, Path(folder) if folder else None, defaults)


def run(bundle: str, requests: list[Request], options: Options) -> Report:
    """Check requests, then make what they ask for.

    Raises:
        LtxError: Something is wrong, or nothing could be made.
    """
    if options.place is None:
        return _run(bundle, requests, options, ALONE)
    from ltx_run.multihost import joined

    with joined(options.place, quiet=options.quiet) as peers:
        if peers.index:
            requests = [replace(request, writes=False, tensors_out=None) for request in requests]
        return _run(bundle, requests, options, peers)


def _run(bundle: str, requests: list[Request], options: Options, peers: Peers) -> Report:
    check_requests(requests)
    cached = options.prompt_cache and peers.count == 1  # a prompt that one process remembers, others may not
    cache = PromptCache(Store(home()), paranoid=options.paranoid) if cached else None
    with in_use(bundle):
        name = _received(bundle, requests[0].variant, options) if is_address(bundle) else bundle
        source = find(name, paranoid=options.paranoid, where=bundle)
        if peers.count > 1:
            from ltx_run.multihost import agree, gather

            gather(peers, "ready")
        batch = prepare(requests, source, cache, peers, allow_compile=options.allow_compile)
        if peers.count > 1:
            agree(peers, identity(batch))
        talkative = not options.quiet and peers.index == 0
        if talkative:
            say(_announced(batch))
        from ltx_run.progress import Bars, Silence
        from ltx_run.run import run as run_batch

        with traced(options.profile), Bars() if talkative else Silence() as observer:
            return run_batch(batch, observer)


def _received(url: str, variant: str | None, options: Options) -> str:
    """The name in the cache of a bundle from a remote, once the variant is there and fits this machine."""

    def select(bundle: Bundle) -> tuple[str]:
        chosen = choose_variant(bundle, variant)
        needed(bundle, [chosen])
        names = needed_programs([bundle.variants[chosen].plan])
        compiles = substitutes(bundle, names) if options.allow_compile else None
        check_fingerprints(bundle, names, compiles=compiles)
        return (chosen,)

    source = address(url)
    order = Order(source, options.trust, select, local_name(source), options.offline)
    with transfer_bar(quiet=options.quiet) as progress:
        found = acquire(Store(home()), order, progress)
    if found.transfer is not None and found.transfer.size and not options.quiet:
        size, total = human_bytes(found.transfer.size), human_bytes(found.transfer.total)
        say(f"received {size} of {total} from {source}, kept as {found.name}")
    return found.name


def _announced(batch: Batch) -> str:
    size = batch.bundle.manifest.variants[batch.variant]
    jobs = batch.jobs
    some = f"seed {jobs[0].request.seed}" if len(jobs) == 1 else f"{len(jobs)} prompts"
    what = f"{size.width}x{size.height}, {size.frames} frames, {some}"
    return f"{batch.bundle.where}, variant {batch.variant}: {what}"


def tell(report: Report, *, quiet: bool, verbose: bool, as_json: bool) -> None:
    """Print what was done.

    Raises:
        VideosFailed: Some of it was not.
    """
    videos = report.videos
    if not quiet and videos:
        from ltx_run.progress import show

        show(report, verbose=verbose)
        made = sum(video.error is None for video in videos)
        what = videos[0].output if len(videos) == 1 else f"{made} of {len(videos)} videos"
        say(f"wrote {what} in {report.seconds:.1f} s")
        for status in dict.fromkeys(video.prompt_cache for video in videos):
            if status.startswith(("hit", "not stored")):
                say(f"prompt cache: {status}")
    if as_json:
        # A path may have bytes that are no UTF-8, which msgspec can't write.
        click.echo(json.dumps(msgspec.to_builtins(report), indent=2))
    failed = [f"{video.output}: {video.error}" for video in videos if video.error is not None]
    lost = [
        f"{video.output} is complete, its tensors were not saved: {video.tensors_error}"
        for video in videos
        if video.tensors_error is not None
    ]
    if failed or lost:
        what = f"{len(failed)} of {len(videos)} videos failed" if failed else "not everything was saved"
        raise VideosFailed("\n  ".join([f"{what}:", *failed, *lost]))
