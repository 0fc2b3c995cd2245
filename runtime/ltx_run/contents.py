"""The blobs that a manifest names, for everything that copies, checks or collects bundles."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import msgspec

from ltx_cache.blobref import BlobRef
from ltx_run.bundle import Blob, Bundle, blobs, codes, decode, files
from ltx_run.errors import BundleInvalid
from ltx_run.plan import programs_of

UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What the parser raises for bytes that are no manifest."""


def parsed(data: bytes) -> Bundle:
    """Read a manifest.

    Raises:
        BundleInvalid: It isn't one, or is of another version.
    """
    try:
        return decode(data)
    except UNREADABLE as error:
        raise BundleInvalid(
            f"the manifest {BlobRef.of(data).sha256[:12]} can't be read: {error}",
            hint="another version of this tool may have made it: upgrade, or build the bundle again",
        ) from None


def contents(data: bytes) -> tuple[BlobRef, ...]:
    """Every blob that a manifest names, each once.

    Raises:
        BundleInvalid: It is no manifest of this version.
        BadName: A digest in it is malformed.
    """
    return _refs(blobs(parsed(data)))


def contents_of(variants: Collection[str] | None) -> Callable[[bytes], tuple[BlobRef, ...]]:
    """Like `contents`, for some variants of a bundle alone; None for all of it."""
    return contents if variants is None else lambda data: needed(parsed(data), variants)


def needed(bundle: Bundle, variants: Collection[str]) -> tuple[BlobRef, ...]:
    """Every blob that some of its variants need, each once.

    Raises:
        BundleInvalid: A plan runs a program, or a program a weight set, that the bundle lacks.
        BadName: A digest in it is malformed.
    """
    steps = [step for name in variants for step in bundle.variants[name].plan]
    names = dict.fromkeys(name for step in steps for name in programs_of(step))
    return _refs([bundle.tokenizer, *(blob for name in names for blob in _of_program(bundle, name))])


def platforms(bundle: Bundle) -> tuple[str, ...]:
    """The platforms that a bundle's programs run on, sorted."""
    return tuple(sorted({program.fingerprint.platform for program in bundle.programs.values()}))


def _of_program(bundle: Bundle, name: str) -> Iterator[Blob]:
    if name not in bundle.programs:
        raise BundleInvalid(f"bundle {bundle.name} runs program {name}, which it lacks")
    program = bundle.programs[name]
    yield from codes(program)
    if program.weights is None:
        return
    if program.weights not in bundle.weights:
        raise BundleInvalid(f"program {name} uses weight set {program.weights}, which the bundle lacks")
    weights = bundle.weights[program.weights]
    yield from files(weights)


def _refs(found: Collection[Blob]) -> tuple[BlobRef, ...]:
    return tuple(dict.fromkeys(BlobRef(blob.sha256, blob.size) for blob in found))
