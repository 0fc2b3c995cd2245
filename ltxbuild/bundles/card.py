"""A remote's README: which bundles are there, for what machines, how large, and how to run them.

On the Hub it is the model card. What people write around the generated part stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ltx_cache.errors import LtxError
from ltx_cache.remote import Card
from ltx_run.bundle import Bundle, Variant, blobs
from ltx_run.console import human_bytes
from ltx_run.contents import needed, parsed, platforms

BEGIN, END = "<!-- ltxbuild: generated from here -->", "<!-- ltxbuild: to here -->"
HEAD = """---
license: other
library_name: ltxbuild
pipeline_tag: text-to-video
tags:
- ltxbuild
- ltx-2.3
---

# LTX-2.3 bundles
"""
LICENCE = """## Licence

The weights here were made from checkpoints of LTX-2.3 and Gemma, which have licences of their own:
see [LTX-2.3](https://huggingface.co/Lightricks/LTX-2.3) and [Gemma](https://ai.google.dev/gemma/terms).
They hold for these files too, whatever format they have."""


def card(url: str) -> Card:
    """What makes the README of a remote at this address."""
    return lambda earlier, manifests: updated(earlier, described(url, manifests))


def updated(earlier: str | None, text: str) -> str:
    """A README in which the generated part is this text; it is added at the end if there is none.

    >>> updated(f"by hand {BEGIN} old {END} more", "new") == f"by hand {BEGIN}\\n\\nnew\\n\\n{END} more"
    True
    """
    part = f"{BEGIN}\n\n{text}\n\n{END}"
    if earlier is None:
        return f"{HEAD}\n{part}\n"
    before, begin, rest = earlier.partition(BEGIN)
    _, end, after = rest.partition(END)
    return before + part + after if begin and end else f"{earlier.rstrip()}\n\n{part}\n"


def described(url: str, manifests: Mapping[str, bytes]) -> str:
    """The generated part: a table of bundles, how to run them, and what licence the weights have.

    Args:
        url: Address of the remote.
        manifests: By name of the bundle.
    """
    parts = ["| bundle | for | variants | size |", "|---|---|---|---:|"]
    parts += [_row(name, manifests[name]) for name in sorted(manifests)]
    parts += ["", *_how_to_run(url, manifests), "", *_details(manifests), LICENCE]
    return "\n".join(parts)


def _row(name: str, data: bytes) -> str:
    bundle = _read(data)
    if bundle is None:
        return f"| `{name}` | made by another version | | |"
    variants = "<br>".join(f"{_plain(key)}: {_size(bundle, key)}" for key in bundle.variants)
    whole = human_bytes(sum(blob.size for blob in blobs(bundle)))
    return f"| `{name}` | {_machine(bundle)} | {variants} | {whole} |"


def _size(bundle: Bundle, name: str) -> str:
    variant = bundle.variants[name]
    try:
        alone = human_bytes(sum(ref.size for ref in needed(bundle, [name])))
    except LtxError:
        alone = "incomplete"
    return f"{_geometry(variant)} ({alone})"


def _geometry(variant: Variant) -> str:
    return f"{variant.width}x{variant.height}, {variant.frames} frames at {variant.fps:g} fps"


def _machine(bundle: Bundle) -> str:
    devices = max((program.fingerprint.devices for program in bundle.programs.values()), default=0)
    runtimes = sorted({program.fingerprint.runtime for program in bundle.programs.values()})
    return f"{devices} {_plain(', '.join(platforms(bundle)))} ({_plain(', '.join(runtimes))})"


def _how_to_run(url: str, manifests: Mapping[str, bytes]) -> Iterator[str]:
    yield "## How to run"
    yield ""
    yield "```console"
    yield "$ pip install 'ltxbuild[hub]'"
    for name in sorted(manifests):
        yield f"$ ltx-run '{url}#{name}' --prompt \"a red ball rolls to the left\" -o out.mp4"
    yield "```"
    yield ""
    yield "Only the variant that is asked for is downloaded, and every file is verified. Bundles that no key"
    yield "you trust has signed are refused, unless `--allow-unsigned` is given."


def _details(manifests: Mapping[str, bytes]) -> Iterator[str]:
    for name in sorted(manifests):
        bundle = _read(manifests[name])
        if bundle is None:
            continue
        recipe = bundle.recipe
        yield f"## {name}"
        yield ""
        for field in ("pipeline", "precision"):
            yield f"* {field}: {_plain(str(recipe.get(field, 'unknown')))}"
        for what, value in sorted(bundle.provenance.items()):
            yield f"* {_plain(what)}: {_plain(value)}"
        yield ""


def _read(data: bytes) -> Bundle | None:
    """A manifest of anyone who may write there; None if this version can't read it."""
    try:
        return parsed(data)
    except LtxError:
        return None


def _plain(text: str) -> str:
    """Text that can't begin markup, a table cell or a line."""
    return re.sub(r"[^\w .,:;/+=()-]", "?", text)[:200]
