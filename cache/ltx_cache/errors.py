"""Errors: one class per decision that a user can take.

    LtxError                   every error that this project raises on purpose
    ├── StoreNotWritable       the store's folder can't be written: fix its permissions, or move the store
    │   └── StorageFull        no space left there: free some, or move the store
    ├── NoHome                 no folder can be told from this user's home: name one
    ├── FileNotReadable        a file can't be read: fix its path or permissions, or check the disk
    ├── StoreInUse             others use the store: wait for them, or come back later
    ├── UnsupportedLayout      another version wrote the store: upgrade, or use another store
    ├── CorruptBlob            a blob was damaged and has been set aside: build or download it again
    ├── WrongBytes             bytes from elsewhere are not what they were said to be: get them again
    ├── MissingBlob            a blob is named but not there: build or download it
    ├── BadEntry               a record is damaged or contradicts what it names: build or pull it again
    ├── BadName                a name or digest that the store does not take: use another
    ├── UnknownRef             no ref of that name: use one that exists
    ├── FileChanged            a file changed while it was read: wait until it is complete
    ├── BundleUnreadable       what a ref reaches can't be told: build it again, or forget it
    ├── RemoteFailed           a remote can't be reached or sends too little: try again
    ├── UnknownBundle          a remote has no bundle of that name: use one that exists
    ├── BadAddress             no remote has an address of this form: write it in another
    ├── NotTrusted             nobody who is trusted signed a bundle: get the key, or accept it unsigned
    ├── BadKey                 a file is no key of the form that is needed: name another
    └── ToolMissing            a package that is needed is not installed: install it

`ltxbuild.errors` and `ltx_run.errors` derive theirs from `LtxError`, so one handler at the edge of a program
prints any of them.

Example:
    >>> error = LtxError("recipe.yaml: height must be a multiple of 32 (got 500)", hint="use 480 or 512")
    >>> error.message, error.hint, error.exit_code
    ('recipe.yaml: height must be a multiple of 32 (got 500)', 'use 480 or 512', 1)
    >>> print(error)
    recipe.yaml: height must be a multiple of 32 (got 500)
      use 480 or 512

Stability: classes, attributes and exit codes are public. Messages are for people and may change.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

MOVE_STORE = "or set LTX_HOME to a folder on another disk"


class LtxError(Exception):
    """Base of every error that a user may see.

    Attributes:
        message: What is wrong and why, with the values.
        hint: What to do next, if there is one thing to do.
        exit_code: 1 the work failed, 2 wrong usage or input, 3 a needed tool or device is missing.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


class StoreNotWritable(LtxError):
    """The store can't be written.

    Attributes:
        path: File or folder that could not be written.
        reason: The operating system's words.
    """

    advice = f"make it writable for this user, {MOVE_STORE}"

    def __init__(self, path: Path, reason: str, /) -> None:
        super().__init__(f"cannot write to the store: {path}: {reason}", hint=self.advice)
        self.path = path
        self.reason = reason


class StorageFull(StoreNotWritable):
    """The disk or the quota of the store is used up; what was there before is untouched."""

    advice = f"free some space there, {MOVE_STORE}"


class NoHome(LtxError):
    """A folder in a user's home is needed, and nobody knows where that home is."""

    exit_code = 2

    def __init__(self, path: str, variable: str, /) -> None:
        super().__init__(
            f"{path} leads nowhere: that user's home folder is not known",
            hint=f"set {variable} to an absolute path",
        )


class FileNotReadable(LtxError):
    """A file, in the store or outside, can't be read.

    Attributes:
        path: The file.
        reason: The operating system's words.
    """

    def __init__(self, path: Path, reason: str, /) -> None:
        super().__init__(
            f"cannot read {path}: {reason}", hint="check the path, its permissions and the health of the disk"
        )
        self.path = path
        self.reason = reason


class StoreInUse(LtxError):
    """Others use the store, so nothing can be removed from it now; nothing was."""

    def __init__(self, root: Path, waited: float, lease: Path, /) -> None:
        super().__init__(
            f"the store at {root} is still in use after {waited:g} s: nothing was removed",
            hint=f"wait longer with --wait, or see who uses it: fuser -v {lease}",
        )


class UnsupportedLayout(LtxError):
    """The store was written by a version that lays it out in another way."""

    exit_code = 2

    def __init__(self, root: Path, found: str, supported: int, /) -> None:
        super().__init__(
            f"the store at {root} has layout {found}, this version reads layout {supported}",
            hint="upgrade this installation, or set LTX_HOME to another folder",
        )


class CorruptBlob(LtxError):
    """A blob's bytes are not what its name says.

    Attributes:
        digest: The name, i.e. the sha256 that the bytes should have.
        path: Where the bytes are now; None if they could not be set aside and are still in place.
        expected: What was promised (digest and size).
        actual: What was found.
    """

    def __init__(self, digest: str, path: Path | None, expected: str, actual: str, /) -> None:
        where = f"set aside as {path}" if path else "it could not be set aside and is still in place"
        super().__init__(
            f"blob {digest} is damaged: expected {expected}, found {actual}; {where}",
            hint="build or download it again; if this repeats, check the disk",
        )
        self.digest = digest
        self.path = path
        self.expected = expected
        self.actual = actual


class WrongBytes(LtxError):
    """Bytes that came from elsewhere are not those that their digest says."""

    def __init__(self, expected: str, actual: str, /) -> None:
        super().__init__(
            f"expected the bytes of {expected}, received {actual}",
            hint="get them again; if this repeats, the source is damaged",
        )


class MissingBlob(LtxError):
    """A blob is named but is not in the store.

    Attributes:
        digest: Its sha256.
    """

    def __init__(self, digest: str, root: Path | str, /) -> None:
        super().__init__(f"blob {digest} is not in the store at {root}", hint="build or download it again")
        self.digest = digest


class BadEntry(LtxError):
    """A record in the store is damaged, or contradicts the blob that it names.

    Attributes:
        where: The record's path, or the blob that it is wrong about.
        reason: What is wrong with it.
    """

    def __init__(self, where: Path | str, reason: str, /) -> None:
        super().__init__(f"{where}: {reason}", hint="build or pull it again, which replaces the record")
        self.where = where
        self.reason = reason


class BadName(LtxError):
    """A name or digest that the store does not take."""

    exit_code = 2

    def __init__(self, what: str, name: str, rule: str, /) -> None:
        super().__init__(f"{name!r} is not a valid {what}: {rule}")


class UnknownRef(LtxError):
    """There is no ref of that name.

    Attributes:
        name: What was asked for.
        nearest: Refs with a similar name, best first; else some that exist.
    """

    exit_code = 2

    def __init__(self, name: str, nearest: Sequence[str], root: Path, /) -> None:
        known = (
            f"did you mean {' or '.join(nearest)}?"
            if nearest
            else "it has no refs yet: build or pull one first"
        )
        super().__init__(f"the store at {root} has no ref {name!r}", hint=known)
        self.name = name
        self.nearest = tuple(nearest)


class FileChanged(LtxError):
    """A file changed while it was read, so its digest means nothing."""

    def __init__(self, path: Path, /) -> None:
        super().__init__(
            f"{path} changed while it was being read",
            hint="wait until whatever writes it (a download, a copy) is done, then run this again",
        )


class BundleUnreadable(LtxError):
    """What a ref reaches can't be told, so nothing can be said to be garbage."""


class RemoteFailed(LtxError):
    """A remote can't be reached, read or written."""


class UnknownBundle(LtxError):
    """A remote has no bundle of that name, or there is a choice and none was named."""

    exit_code = 2


class BadAddress(LtxError):
    """An address of a form that no remote has."""

    exit_code = 2


class NotTrusted(LtxError):
    """A bundle from elsewhere that no trusted key has signed."""

    exit_code = 2


class BadKey(LtxError):
    """A file or text that is no key, or none of the kind that is needed."""

    exit_code = 2


class ToolMissing(LtxError):
    """A package or compiler that is needed is not installed."""

    exit_code = 3
