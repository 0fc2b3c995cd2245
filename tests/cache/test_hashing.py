"""Hashing side by side with reading."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from ltx_cache.hashing import CHUNK, StreamHash, chunks, hash_file


class Slow:
    """A hash that takes its time and keeps what it saw."""

    def __init__(self) -> None:
        self.seen = b""

    def update(self, data: memoryview) -> None:
        """Look at the bytes late."""
        time.sleep(0.02)
        self.seen += bytes(data)


def test_reading_does_not_overtake_hashing(tmp_path: Path) -> None:
    """A slow hash still sees every byte, once and in order, although the buffers are used in turn."""
    path = tmp_path / "data"
    path.write_bytes(os.urandom(4 * CHUNK + 7))
    sha, slow = StreamHash(), Slow()
    sha._sha = slow  # type: ignore[assignment]
    with path.open("rb", buffering=0) as file:
        for chunk in chunks(file):
            sha.feed(chunk)
    sha.wait()
    assert slow.seen == path.read_bytes()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_every_size(tmp_path: Path, size: int) -> None:
    """Sizes around the edges of a piece give the digest of the bytes, and progress adds up to them."""
    path = tmp_path / "data"
    path.write_bytes(os.urandom(size))
    seen: list[int] = []
    with path.open("rb", buffering=0) as file:
        assert hash_file(file, seen.append) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sum(seen) == size
