"""Where the store and the user's settings are when nobody says otherwise.

Example:
    >>> home().is_absolute()
    True
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ltx_cache.errors import NoHome


def home() -> Path:
    """The store's folder: `LTX_HOME`, else `ltxbuild` in the user's cache folder.

    The cache folder is `~/Library/Caches` on macOS, else `$XDG_CACHE_HOME`, which counts only if it is
    absolute (as its specification asks), else `~/.cache`. The folder need not exist.

    Raises:
        NoHome: The user has no home folder, or `LTX_HOME` names that of somebody unknown.
    """
    chosen = os.environ.get("LTX_HOME")
    if chosen:
        return _expanded(chosen, "LTX_HOME").absolute()
    return _user_cache() / "ltxbuild"


def config_home() -> Path:
    """The folder of the user's settings: `ltxbuild` in `$XDG_CONFIG_HOME` or `~/.config`.

    It is not in the store, which may be shared with people who shall not change whom this user trusts.

    Raises:
        NoHome: The user has no home folder.
    """
    return (_absolute("XDG_CONFIG_HOME") or _expanded("~/.config", "XDG_CONFIG_HOME")) / "ltxbuild"


def _user_cache() -> Path:
    if sys.platform == "darwin":
        return _expanded("~/Library/Caches", "LTX_HOME")
    return _absolute("XDG_CACHE_HOME") or _expanded("~/.cache", "LTX_HOME")


def _absolute(variable: str) -> Path | None:
    chosen = Path(os.environ.get(variable, ""))
    return chosen if chosen.is_absolute() else None


def _expanded(path: str, variable: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise NoHome(path, variable) from None
