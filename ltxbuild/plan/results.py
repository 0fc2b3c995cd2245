"""Looking up results of earlier builds.

Other versions of this package may share a cache. What one of them kept under a key that this version has too,
but in another form, is no result here: it is built again and replaced.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ltx_cache.key import Key
from ltx_cache.store import Hit, Miss, Store


def look_up(store: Store, key: Key, form: Any) -> Hit | Miss:
    """What the store has under a key; a value that is not of a form is a miss.

    Args:
        store: The store.
        key: The key.
        form: Type of the value, as msgspec takes it.

    Raises:
        FileNotReadable: The entry exists and can't be read.
    """
    found = store.lookup(key)
    if isinstance(found, Hit):
        try:
            msgspec.convert(found.value, form)
        except msgspec.ValidationError as error:
            return Miss(f"another version made it: {error}")
    return found
