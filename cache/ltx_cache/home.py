"""Where the store and the user's settings are when nobody says otherwise.

Example:
    >>> home().is_absolute()
    True
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def home() -> Path:
    """The store's folder: `LTX_HOME`, else `ltxbuild` in the user's cache folder.

    The cache folder is `~/Library/Caches` on macOS, else `$XDG_CACHE_HOME`, which counts only if it is
    absolute (as its specification asks), else `~/.cache`. The folder need not exist.
    """
    chosen = os.environ.get("LTX_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return _user_cache() / "ltxbuild"


def config_home() -> Path:
    """The folder of the user's settings: `ltxbuild` in `$XDG_CONFIG_HOME` or `~/.config`.

    It is not in the store, which may be shared with people who shall not change whom this user trusts.
    """
    return _xdg("XDG_CONFIG_HOME", ".config") / "ltxbuild"


def _user_cache() -> Path:
    return (
        Path.home() / "Library" / "Caches" if sys.platform == "darwin" else _xdg("XDG_CACHE_HOME", ".cache")
    )


def _xdg(variable: str, default: str) -> Path:
    chosen = Path(os.environ.get(variable, ""))
    return chosen if chosen.is_absolute() else Path.home() / default
