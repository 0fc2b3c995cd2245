"""Where the store is when nobody says otherwise.

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


def _user_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return xdg if xdg.is_absolute() else Path.home() / ".cache"
