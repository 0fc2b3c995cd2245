"""Names that may become file names in the store.

One rule for refs, kinds, locks and logs: lower case letters, digits, `.`, `_` and `-`, a letter or digit
first, at most 128 characters. So no name can leave its folder, hide, or collide with another on a file system
that ignores case.

Example:
    >>> checked_name("ref", "cpu-tiny.v2")
    'cpu-tiny.v2'
    >>> checked_name("ref", "../bundle")
    Traceback (most recent call last):
    ...
    ltx_cache.errors.BadName: '../bundle' is not a valid ref: use a-z, 0-9, '.', '_', '-', a letter or ...
"""

from __future__ import annotations

import re

from ltx_cache.errors import BadName

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def checked_name(what: str, name: str) -> str:
    """The name itself, if the store takes it; `what` says in the message what it names.

    Raises:
        BadName: It doesn't follow the rule.
    """
    if not _NAME.fullmatch(name):
        raise BadName(
            what, name, "use a-z, 0-9, '.', '_', '-', a letter or digit first, at most 128 characters"
        )
    return name


def checked_digest(digest: str) -> str:
    """The digest itself, if it is 64 lower case hex digits.

    Raises:
        BadName: It is anything else.
    """
    if not _DIGEST.fullmatch(digest):
        raise BadName("sha256", digest, "64 lower case hex digits are needed")
    return digest
