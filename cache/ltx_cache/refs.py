"""Refs: names that people give to manifests.

Example:
    >>> import tempfile
    >>> from ltx_cache.stamps import Stamps
    >>> layout = Layout(Path(tempfile.mkdtemp()))
    >>> blobs = Blobs(layout, Stamps(layout))
    >>> refs = Refs(layout, blobs)
    >>> refs.set("cpu-tiny", blobs.put_bytes(b"{}"), {"programs": 7})
    >>> [(ref.name, ref.summary) for ref in refs.all()]
    [('cpu-tiny', {'programs': 7})]
    >>> refs.get("cpu-tinny")
    Traceback (most recent call last):
    ...
    ltx_cache.errors.UnknownRef: the store at ... has no ref 'cpu-tinny'
      did you mean cpu-tiny?
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ltx_cache import records
from ltx_cache.blobref import BlobRef
from ltx_cache.blobs import Blobs
from ltx_cache.canonical import JSON
from ltx_cache.errors import BadEntry, BadName, UnknownRef
from ltx_cache.files import reading, sync_folder, writing
from ltx_cache.layout import Layout
from ltx_cache.names import checked_name


@dataclass(frozen=True, slots=True)
class Ref:
    """A named manifest.

    Attributes:
        name: The name.
        manifest: The blob that it names.
        summary: Whatever a listing shows of it.
    """

    name: str
    manifest: BlobRef
    summary: JSON


class Refs:
    """The refs of one store."""

    def __init__(self, layout: Layout, blobs: Blobs) -> None:
        self._layout = layout
        self._blobs = blobs

    def set(self, name: str, manifest: BlobRef, summary: JSON = None) -> None:
        """Let a name stand for a manifest, in one step.

        Raises:
            BadName: The store doesn't take the name.
            MissingBlob: The manifest is not there.
            StorageFull: No space left.
            StoreNotWritable: The store can't be written.
        """
        path = self._path(name)
        self._blobs.settle(manifest)
        records.write(self._layout, path, {"manifest": manifest.json(), "summary": summary})

    def get(self, name: str) -> Ref:
        """The ref of that name; whether its manifest is there is not looked at.

        Raises:
            BadName: No ref can have this name.
            UnknownRef: There is none.
            BadEntry: It is damaged.
            FileNotReadable: It can't be read.
        """
        path = self._path(name)
        with reading(path):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                raise UnknownRef(name, self._nearest(name), self._layout.root) from None
        return _parse(path, name, data)

    def all(self) -> list[Ref]:
        """All refs by name.

        Raises:
            BadEntry: One is damaged.
            FileNotReadable: One can't be read.
        """
        return [self.get(name) for name in self._names()]

    def remove(self, name: str) -> None:
        """Forget a name.

        Raises:
            BadName: No ref can have this name.
            UnknownRef: There is none.
            StoreNotWritable: The store can't be written.
        """
        path = self._path(name)
        with writing(path):
            try:
                path.unlink()
            except FileNotFoundError:
                raise UnknownRef(name, self._nearest(name), self._layout.root) from None
            sync_folder(path.parent)

    def _names(self) -> list[str]:
        return sorted(path.stem for path in self._layout.folder("refs").glob("*.json"))

    def _nearest(self, name: str) -> list[str]:
        import difflib  # costs more than the rest of this package, and only mistakes need it

        names = self._names()
        return difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names[:3]

    def _path(self, name: str) -> Path:
        return self._layout.folder("refs") / f"{checked_name('ref', name)}.json"


def _parse(path: Path, name: str, data: bytes) -> Ref:
    try:
        match records.decode(data):
            case {"manifest": manifest, "summary": summary}:
                return Ref(name, BlobRef.parse(manifest), summary)
    except (ValueError, BadName) as error:
        raise BadEntry(path, str(error)) from None
    raise BadEntry(path, "it has other fields than a ref")
