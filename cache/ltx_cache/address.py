"""Addresses of remotes: `file:///folder`, with `@name` for one bundle in it.

Example:
    >>> found = address("file:///mnt/bundles@cpu-tiny")
    >>> found.remote.url, found.name
    ('file:///mnt/bundles', 'cpu-tiny')
    >>> address("/mnt/bundles")
    Traceback (most recent call last):
    ...
    ltx_cache.errors.BadAddress: '/mnt/bundles' is no address of a remote
      write file:///FOLDER or file:///FOLDER@NAME
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from ltx_cache.errors import BadAddress, UnknownBundle
from ltx_cache.folder_remote import FolderRemote
from ltx_cache.names import checked_name
from ltx_cache.remote import Remote

FILE = "file://"


class Address(NamedTuple):
    """Where a bundle is, or shall be.

    Attributes:
        remote: The place.
        name: The bundle; None if the address names none.
    """

    remote: Remote
    name: str | None

    def only(self) -> str:
        """The name, or that of the only bundle there.

        Raises:
            UnknownBundle: There is none, or a choice.
            LtxError: The remote can't be read.
        """
        if self.name is not None:
            return self.name
        names = self.remote.names()
        if len(names) == 1:
            return names[0]
        if not names:
            raise UnknownBundle(f"{self.remote.url} has no bundles")
        listed = " or ".join(f"{self.remote.url}@{name}" for name in names)
        raise UnknownBundle(f"{self.remote.url} has {len(names)} bundles", hint=f"name one: {listed}")


def address(text: str) -> Address:
    """Read an address; a `@` after the last slash begins the name.

    Raises:
        BadAddress: It has another form.
        BadName: No bundle can have this name.
    """
    path, at, name = text.removeprefix(FILE).rpartition("@")
    if not at or "/" in name:
        path, name = text.removeprefix(FILE), ""
    if not text.startswith(FILE) or not path.startswith("/"):
        raise BadAddress(
            f"{text!r} is no address of a remote", hint=f"write {FILE}/FOLDER or {FILE}/FOLDER@NAME"
        )
    return Address(FolderRemote(Path(unquote(path))), checked_name("bundle name", name) if name else None)
