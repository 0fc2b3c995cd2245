"""Addresses of remotes: `file:///FOLDER` and `hf://ORG/REPO[@REVISION]`, with `#NAME` for one bundle there.

`#sha256:DIGEST` in place of a name pins a bundle by the digest of its manifest, whatever its name points to.
A revision is a branch, a tag or a commit of the repository; without one it is the branch `main`.

Example:
    >>> found = address("file:///mnt/bundles#cpu-tiny")
    >>> found.remote.url, found.name, str(found)
    ('file:///mnt/bundles', 'cpu-tiny', 'file:///mnt/bundles#cpu-tiny')
    >>> address("hf://org/repo@v2#wide").remote.url
    'hf://org/repo@v2'
    >>> address("/mnt/bundles")
    Traceback (most recent call last):
    ...
    ltx_cache.errors.BadAddress: '/mnt/bundles' is no address of a remote
      write file:///FOLDER[#NAME] or hf://ORG/REPO[@REVISION][#NAME]
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from ltx_cache.errors import BadAddress
from ltx_cache.folder_remote import FolderRemote
from ltx_cache.names import checked_digest, checked_name
from ltx_cache.remote import Remote

FILE, HUB, DIGEST = "file://", "hf://", "sha256:"
FORM = "file:///FOLDER[#NAME] or hf://ORG/REPO[@REVISION][#NAME]"
_REPO = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)


class Address(NamedTuple):
    """Where a bundle is, or shall be.

    Attributes:
        remote: The place.
        name: The bundle; None if the address doesn't name it.
        digest: That of its manifest; None if the address doesn't pin it.
    """

    remote: Remote
    name: str | None = None
    digest: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether it will always mean the same."""
        return self.digest is not None or self.remote.fixed

    def __str__(self) -> str:
        which = self.name or (DIGEST + self.digest if self.digest else "")
        return f"{self.remote.url}#{which}" if which else self.remote.url


def is_address(text: str) -> bool:
    """Whether a text is meant to be the address of a remote."""
    return text.startswith((FILE, HUB))


def address(text: str) -> Address:
    """Read an address.

    Raises:
        BadAddress: It has another form.
        BadName: No bundle can have this name or digest.
    """
    place, _, which = text.partition("#")
    remote = _remote(text, place)
    if which.startswith(DIGEST):
        return Address(remote, digest=checked_digest(which.removeprefix(DIGEST)))
    return Address(remote, checked_name("bundle name", which) if which else None)


def _remote(text: str, place: str) -> Remote:
    if place.startswith(FILE + "/"):
        return FolderRemote(Path(unquote(place.removeprefix(FILE))))
    match = _REPO.fullmatch(place.removeprefix(HUB)) if place.startswith(HUB) else None
    if match is None:
        raise BadAddress(f"{text!r} is no address of a remote", hint=f"write {FORM}")
    from ltx_cache.hub_remote import HubRemote

    return HubRemote(match[1], match[2])
