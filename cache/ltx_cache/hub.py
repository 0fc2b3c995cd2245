"""Talking to the Hugging Face Hub: its client, its errors in our words, and patience.

Only the public interface of `huggingface_hub` is used. It is imported by the first call: it takes half a
second, and most commands don't need it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from ltx_cache.errors import BadAddress, LtxError, RemoteFailed, ToolMissing, UnknownBundle

Result = TypeVar("Result")

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between tries, each times a random factor from 0.5 to 1.5, so that two who collide part."""
TRANSIENT = frozenset({408, 409, 412, 425, 429, 500, 502, 503, 504})
ACCESS = "log in with `hf auth login` or set HF_TOKEN, if the repository is private or gated"

STEP = 0.1
"""Seconds of a wait between two looks whether somebody still wants the bytes."""
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as lost."""
PARTIAL_CONTENT = 206


class Absent(LtxError):
    """There is no such file or folder in a repository."""


@cache
def library() -> Any:
    """The module `huggingface_hub`, without its progress bars.

    Raises:
        ToolMissing: It is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.utils
    except ModuleNotFoundError:
        raise ToolMissing(
            "the bundle is on the Hugging Face Hub and huggingface_hub is not installed",
            hint="pip install 'ltxbuild[hub]'",
        ) from None
    hub: Any = huggingface_hub
    if not hub.utils.are_progress_bars_disabled():
        hub.utils.disable_progress_bars()
    return hub


def patiently(url: str, work: Callable[[], Result]) -> Result:
    """Do something on the Hub, again after failures that pass.

    Raises:
        LtxError: It failed for good; says why.
    """
    library()
    for wait in (*WAITS, None):
        try:
            with translated(url):
                return work()
        except RemoteFailed as error:
            if wait is None or not _is_transient(error.__cause__):
                raise
            time.sleep(_varied(wait))
    raise AssertionError  # the last try returns or raises


def resuming(url: str, stream: Callable[[int], Iterator[bytes]], offset: int) -> Iterator[bytes]:
    """What `stream` gives from an offset on, asked again from there when it breaks.

    Between two tries it gives empty pieces, so that a reader who is to stop needn't wait for the next one.

    Raises:
        LtxError: It broke several times in a row without a byte, or for good.
    """
    library()
    waits = iter(WAITS)
    while True:
        try:
            with translated(url):
                for piece in stream(offset):
                    offset, waits = offset + len(piece), iter(WAITS)
                    yield piece
                return
        except RemoteFailed as error:
            wait = next(waits, None)
            if wait is None or not _is_transient(error.__cause__):
                raise
        yield from _pauses(wait)


def streamed(url: str, offset: int) -> Iterator[bytes]:
    """The bytes of a file from an offset on, by one request."""
    hub = library()
    # Compressed on the way, a file would have other offsets.
    headers = hub.utils.build_hf_headers(library_name="ltxbuild") | {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with hub.get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as response:
        if response.is_error:
            response.read()
            hub.utils.hf_raise_for_status(response)
        skip = offset if response.status_code != PARTIAL_CONTENT else 0
        for piece in response.iter_raw():
            if skip < len(piece):
                yield piece[skip:]
            skip = max(0, skip - len(piece))


def _varied(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.5)


def _pauses(seconds: float) -> Iterator[bytes]:
    """Wait, with an empty piece before each part of it."""
    end = time.monotonic() + _varied(seconds)
    yield b""
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, STEP))
        yield b""


def _is_transient(error: BaseException | None) -> bool:
    """Whether the same request may succeed a little later."""
    import httpx

    response = getattr(error, "response", None)
    if response is not None:
        return response.status_code in TRANSIENT
    return isinstance(error, httpx.TransportError)


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn the client's errors into ours; the client's is the cause.

    Raises:
        Absent: There is no such file.
        UnknownBundle: There is no such repository or revision, or it is hidden from this user.
        BadAddress: The repository's name is none.
        RemoteFailed: Anything else.
    """
    import httpx
    from huggingface_hub import errors

    try:
        yield
    except errors.EntryNotFoundError as error:
        raise Absent(f"{url}: there is no such file") from error
    except errors.RevisionNotFoundError as error:
        raise UnknownBundle(f"{url}: the repository has no such branch, tag or commit") from error
    except errors.RepositoryNotFoundError as error:
        raise UnknownBundle(f"{url}: no such repository, or no access to it", hint=ACCESS) from error
    except errors.OfflineModeIsEnabled as error:
        raise RemoteFailed(
            f"{url} can't be asked: HF_HUB_OFFLINE is set", hint="unset it, or use --offline"
        ) from error
    except errors.HFValidationError as error:
        raise BadAddress(f"{url}: {error}", hint="write hf://ORG/REPO[@REVISION][#NAME]") from error
    except errors.HfHubHTTPError as error:
        raise _failed(url, error.response.status_code, error) from error
    except httpx.HTTPStatusError as error:
        raise _failed(url, error.response.status_code, error) from error
    except httpx.HTTPError as error:
        raise RemoteFailed(
            f"{url} can't be reached: {str(error) or type(error).__name__}",
            hint="check the connection and run this again; what has arrived is kept",
        ) from error
    except (OSError, ValueError) as error:
        raise RemoteFailed(f"{url}: {error}") from error


def _failed(url: str, status: int, error: Exception) -> RemoteFailed:
    said = " ".join(str(getattr(error, "server_message", None) or error).split())
    if status in (401, 403):
        return RemoteFailed(f"{url}: access was refused ({status}): {said}", hint=ACCESS)
    advice = "run this again in a while; what has arrived is kept" if status in TRANSIENT else None
    return RemoteFailed(f"{url}: the Hub answered {status}: {said}", hint=advice)
