"""Writing a blob of unknown digest: bytes go in, a reference comes out.

`Store.writer` is the way to get one:

    with store.writer() as w:
        for tensor in tensors:
            w.write(memoryview(tensor))
        ref = w.commit()
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeAlias

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import WrongBytes
from ltx_cache.files import TempFile
from ltx_cache.hashing import CHUNK, StreamHash

Data: TypeAlias = bytes | bytearray | memoryview


class BlobWriter:
    """One blob being written; without `commit`, the end of the block leaves nothing.

    For use in one thread. Large writes are quickest: their bytes are hashed while they are written, and never
    copied.
    """

    def __init__(self, temp: Callable[[], TempFile], publish: Callable[[TempFile, BlobRef], None]) -> None:
        self._make_temp = temp
        self._publish = publish
        self._temp: TempFile | None = None
        self._sha = StreamHash()
        self._size = 0

    def write(self, data: Data, *, given: bool = False) -> int:
        """Append bytes.

        Args:
            data: The bytes; the buffer may be used again once this returns.
            given: The buffer won't change any more: it may still be hashed while the caller makes the next.

        Returns:
            The number of bytes, as files do.

        Raises:
            StorageFull: No space left.
            StoreNotWritable: The store can't be written.
            TypeError: The buffer is not contiguous.
            RuntimeError: The writer is not open.
        """
        temp = self._opened()
        view = memoryview(data)
        if not view.nbytes:
            return 0
        flat = view.cast("B")
        try:
            for start in range(0, flat.nbytes, CHUNK):
                piece = flat[start : start + CHUNK]
                self._sha.feed(piece)
                temp.write(piece)
        finally:
            if not given:
                self._sha.wait()
        self._size += flat.nbytes
        return flat.nbytes

    def commit(self, expected: BlobRef | None = None) -> BlobRef:
        """Make the blob durable and visible, and name it.

        Args:
            expected: What somebody else said that it would be; nothing is published if it isn't.

        Raises:
            WrongBytes: The bytes are not the expected ones.
            StorageFull: No space left.
            StoreNotWritable: The store can't be written.
            RuntimeError: The writer is not open.
        """
        ref = BlobRef(self._sha.hexdigest(), self._size)
        if expected is not None and ref != expected:
            raise WrongBytes(f"{expected.sha256} ({expected.size} bytes)", f"{ref.sha256} ({ref.size} bytes)")
        self._publish(self._opened(), ref)
        self._temp = None
        return ref

    def _opened(self) -> TempFile:
        if self._temp is None:
            raise RuntimeError("the blob writer is not open: use it in a with block, before commit")
        return self._temp

    def __enter__(self) -> Self:
        self._temp = self._make_temp()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._temp is not None:
            self._temp.discard()
            self._temp = None
