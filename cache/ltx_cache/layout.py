"""Folders of a store, and the version of their arrangement.

    VERSION                          the version of this arrangement
    blobs/<2 hex>/<digest>           read-only bytes, named by their sha256
    entries/<kind>/<key digest>.json what a key gave: factors, value, blobs
    refs/<name>.json                 names for manifests
    stamps/                          which blobs and outside files have been hashed
    locks/  logs/  quarantine/       locks, build logs, damaged blobs
    partial/                         blobs that are being received, named by their digest
    tmp/                             files that are being written, named by host and process

Example:
    >>> import tempfile
    >>> layout = Layout(Path(tempfile.mkdtemp()))
    >>> layout.folder("blobs").name
    'blobs'
"""

from __future__ import annotations

from pathlib import Path

from ltx_cache.errors import UnsupportedLayout
from ltx_cache.files import TempFile, make_folder, reading, writing

VERSION = 1


class Layout:
    """The folders below one root; nothing is created before the first write.

    Attributes:
        root: The store's folder, absolute.

    Raises:
        UnsupportedLayout: Another version wrote the store.
        FileNotReadable: The version can't be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._prepared = self._check_version()

    def folder(self, name: str) -> Path:
        """Path of a folder, which may not exist yet."""
        return self.root / name

    def writable_folder(self, name: str) -> Path:
        """Path of a folder, which exists.

        Raises:
            StoreNotWritable: It can't be made.
        """
        self._prepare()
        folder = self.folder(name)
        if not folder.is_dir():
            with writing(folder):
                make_folder(folder)
        return folder

    def temp(self, mode: int = 0o666) -> TempFile:
        """A temporary file in the store.

        Raises:
            StoreNotWritable: It can't be created.
        """
        self._prepare()
        return TempFile(self.folder("tmp"), mode)

    def _prepare(self) -> None:
        if self._prepared:
            return
        with TempFile(self.folder("tmp")) as temp:
            temp.write(memoryview(f"{VERSION}\n".encode()))
            temp.publish(self.root / "VERSION")
        self._prepared = True

    def _check_version(self) -> bool:
        """Whether the store exists; refuses one that another version laid out."""
        path = self.root / "VERSION"
        with reading(path):
            try:
                found = path.read_text(encoding="utf-8", errors="replace").strip()
            except FileNotFoundError:
                return False
        if found != str(VERSION):
            raise UnsupportedLayout(self.root, repr(found), VERSION)
        return True
