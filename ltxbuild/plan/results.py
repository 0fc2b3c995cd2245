"""Looking up results of earlier builds.

Other versions of this package may share a cache. What one of them kept under a key that this version has too,
but in another form, is no result here: it is built again and replaced.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

from ltx_cache.key import Key
from ltx_cache.store import Hit, Miss, Store

Form = TypeVar("Form")
_LOCK = threading.Lock()


def as_form(value: Any, form: type[Form]) -> Form:
    """A value of builtin types as a record.

    One thread at a time: msgspec works out what a type looks like at its first use, and the process ends with
    a segmentation fault when two threads do that at once.

    Raises:
        msgspec.ValidationError: The value is not of that form.
    """
    with _LOCK:
        return msgspec.convert(value, form)


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
            as_form(found.value, form)
        except msgspec.ValidationError as error:
            return Miss(f"another version made it: {error}")
    return found
