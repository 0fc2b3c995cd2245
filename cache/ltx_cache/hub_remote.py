"""A repository on the Hugging Face Hub as a remote.

All reads of one `HubRemote` are of one commit, so they fit together whatever is pushed meanwhile. A push
uploads blobs, which nobody sees, and makes them visible together with the pointer, in one commit on top of
the commit that was read. If another commit came first, it reads again and tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadEntry, BadName, MissingBlob, RemoteFailed
from ltx_cache.hub import Absent, patiently
from ltx_cache.hub_repo import HubRepo
from ltx_cache.names import checked_digest
from ltx_cache.remote import (
    CARD,
    CARD_LIMIT,
    POINTER_LIMIT,
    SIGNATURE_LIMIT,
    Publication,
    Source,
    TooLarge,
    blob_path,
    bundle_names,
    card_text,
    decode_pointer,
    encode_pointer,
    manifests,
    pointer_path,
    signature_folder,
    signature_path,
)

_PATHS = 500
"""Paths in one question."""
_FILES = 8
"""Files in one upload: some at a time, and often enough for a bar to move."""


class HubRemote:
    """A remote in a model repository, at a branch, tag or commit.

    Args:
        repo: `ORG/REPO`.
        revision: Branch, tag or commit; None for `main`.
        endpoint: The Hub's address; None for that of `huggingface_hub` (`HF_ENDPOINT`).
    """

    connections = 8

    def __init__(self, repo: str, revision: str | None = None, endpoint: str | None = None) -> None:
        self._repo = HubRepo(repo, revision, endpoint)
        self._uploaded: list[Any] = []
        self._relied_on: dict[str, int] = {}
        self.url = self._repo.url
        self.fixed = self._repo.fixed

    def state(self) -> str:
        """The commit that is read."""
        return self._repo.commit()

    def create(self, *, private: bool) -> None:
        """Make the repository and the branch if they aren't there.

        Raises:
            BadAddress: The address is a commit, or the repository is public and shall be private.
            LtxError: The Hub refuses.
        """
        self._repo.create(private=private)

    def sizes(self, digests: Iterable[str]) -> dict[str, int]:
        """Sizes of those blobs that it has; where the Hub knows a file's sha256, it is the blob's."""
        paths, found = [blob_path(digest) for digest in digests], dict[str, int]()
        for start in range(0, len(paths), _PATHS):
            for file in self._repo.described(paths[start : start + _PATHS]):
                digest = file.path.rpartition("/")[2]
                if getattr(file, "lfs", None) is None or file.lfs.sha256 == digest:
                    found[digest] = getattr(file, "size", -1)  # a folder has none
        self._relied_on |= found
        return found

    def put(self, blobs: Sequence[tuple[BlobRef, Source]], sent: Callable[[int], None]) -> None:
        """Upload blobs; `move` makes them visible.

        Raises:
            LtxError: The Hub can't be reached or refuses.
        """
        for start in range(0, len(blobs), _FILES):
            some = blobs[start : start + _FILES]
            files = [self._repo.file(blob_path(ref.sha256), source) for ref, source in some]
            self._repo.upload(files)
            self._uploaded += files
            sent(sum(ref.size for ref, _ in some))

    def get(self, digest: str, offset: int) -> Iterator[bytes]:
        """The bytes of a blob from an offset on; goes on by itself where a connection broke.

        Raises:
            MissingBlob: It isn't there.
            LtxError: The Hub can't be reached or refuses.
        """
        try:
            yield from self._repo.content(blob_path(digest), offset)
        except Absent:
            raise MissingBlob(digest, self.url) from None

    def names(self) -> list[str]:
        """Names of all bundles."""
        return bundle_names(self._repo.listed("bundles"))

    def read(self, name: str) -> BlobRef | None:
        """The manifest that a pointer names; None if there is no such pointer.

        Raises:
            BadEntry: The pointer is damaged, or too large to be one.
            LtxError: The Hub can't be reached or refuses.
        """
        path = pointer_path(name)
        try:
            data = self._repo.small(path, POINTER_LIMIT)
        except TooLarge as error:
            raise BadEntry(f"{self.url}: {path}", error.reason) from None
        return None if data is None else decode_pointer(f"{self.url}: {path}", data)

    def signers(self, manifest: str) -> list[str]:
        """Ids of the keys that signed a manifest."""
        return sorted(key for key in self._repo.listed(signature_folder(manifest)) if _is_digest(key))

    def signature(self, manifest: str, key: str) -> bytes | None:
        """The signature of a manifest by a key; None if there is none."""
        return self._repo.small(signature_path(manifest, key), SIGNATURE_LIMIT)

    def move(self, publication: Publication) -> None:
        """Commit what was put, and let a pointer name a manifest, at once.

        Raises:
            LtxError: The Hub can't be reached or refuses, or others were quicker every time.
        """
        stale = False

        def commit() -> None:
            nonlocal stale
            if stale:
                self._refresh()
            stale = True
            files = [*self._uploaded, *self._changed(publication)]
            if files:
                self._repo.upload(files)
                self._repo.add(files, f"Publish bundle {publication.name}")
                self._uploaded = []

        patiently(self.url, commit)

    def _changed(self, publication: Publication) -> list[Any]:
        """The files of a publication, beside its blobs, that are not there yet."""
        manifest = publication.manifest.sha256
        wanted = {signature_path(manifest, key): data for key, data in publication.signatures.items()}
        wanted[pointer_path(publication.name)] = encode_pointer(publication.manifest)
        there = {path: self._repo.small(path, SIGNATURE_LIMIT) for path in wanted}
        if publication.card is not None:
            there[CARD] = self._repo.small(CARD, CARD_LIMIT)
            bundles = manifests(self) | {publication.name: publication.data}
            wanted[CARD] = publication.card(card_text(self, there[CARD]), bundles).encode()
        return [self._repo.file(path, data) for path, data in wanted.items() if there[path] != data]

    def _refresh(self) -> None:
        """Read the branch again; what was found there before has to be there still."""
        relied_on = self._relied_on.copy()
        self._repo.forget()
        uploaded = {file.path_in_repo.rpartition("/")[2]: file for file in self._uploaded}
        found = self.sizes([*relied_on, *uploaded])
        if gone := relied_on.keys() - found.keys() - uploaded.keys():
            raise RemoteFailed(
                f"{self.url} lost blobs while this was sent: {', '.join(sorted(gone))}", hint="push again"
            )
        self._uploaded = [file for digest, file in uploaded.items() if digest not in found]
        self._relied_on = found


def _is_digest(text: str) -> bool:
    with suppress(BadName):
        return checked_digest(text) == text
    return False
