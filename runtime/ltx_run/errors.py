"""Errors of the runtime: one class per decision that a user can take.

    LtxError (ltx_cache.errors)
    ├── BundleNotFound     no bundle of that name: use one that exists, or build it
    ├── BundleInvalid      the bundle contradicts itself or is damaged: build or download it again
    ├── ProgramMismatch    programs were compiled for another machine: rebuild them for this one
    ├── DeviceUnavailable  the machine lacks the platform that something needs
    ├── BadVariant         the bundle has no such variant: choose one of those listed
    ├── BadPrompt          the prompt is empty, too long or no text: change it
    ├── BadScale           a guidance scale isn't one of the variant's, or is no number in f32: change it
    ├── BadImage           an image can't be read, or doesn't fit the variant: another file or frame
    ├── BadRequests        several prompts of a file have something wrong: change them
    ├── BadTensor          a tensor to inject has a wrong name, shape or dtype
    ├── NoProvenance       a file doesn't say how it was made: it is not from here, or was encoded again
    ├── BadCluster         processes that shall run together were started in contradiction: start them anew
    ├── PeerLost           another of these processes is gone: look there, start all anew
    ├── CompileFailed      a portable program can't be compiled on this machine: build it for this machine
    ├── OutputError        the output can't be written: another path or suffix
    ├── ProgramFailed      a program stopped while it ran
    └── VideosFailed       some videos, or tensors beside them, were not made; the others are complete

Everything but the last two is raised before the first program is loaded, except for damage that only
reading a file shows.
"""

from __future__ import annotations

from ltx_cache.errors import LtxError


class BundleNotFound(LtxError):
    """A name that is no bundle in the cache and no bundle directory."""

    exit_code = 2


class BundleInvalid(LtxError):
    """A bundle that is damaged, incomplete or contradicts itself."""


class ProgramMismatch(LtxError):
    """Programs compiled for another machine."""

    exit_code = 3


class DeviceUnavailable(LtxError):
    """A platform or instruction set that this machine doesn't have."""

    exit_code = 3


class BadVariant(LtxError):
    """A variant that the bundle doesn't have."""

    exit_code = 2


class BadPrompt(LtxError):
    """A prompt that is empty, too long or no text."""

    exit_code = 2


class BadScale(LtxError):
    """A guidance scale that the variant doesn't have, or with a value that is no number."""

    exit_code = 2


class BadImage(LtxError):
    """An image that can't be read, or that the variant has no place for."""

    exit_code = 2


class BadRequests(LtxError):
    """Several prompts of a file that can't be used as they are."""

    exit_code = 2


class BadTensor(LtxError):
    """A tensor to inject that the plan doesn't have in that form."""

    exit_code = 2


class NoProvenance(LtxError):
    """A file that doesn't say how it was made."""

    exit_code = 2


class OutputError(LtxError):
    """An output path that can't be written."""

    exit_code = 2


class ProgramFailed(LtxError):
    """A program that stopped while it ran."""


class VideosFailed(LtxError):
    """Some videos of a batch, or tensors beside them, were not made; the others are complete."""


class BadCluster(LtxError):
    """Processes that can't run together as they were started."""

    exit_code = 2


class PeerLost(LtxError):
    """Another process of the same run that failed, was killed, or never came."""


class CompileFailed(LtxError):
    """A portable program that this machine's compiler refuses."""
