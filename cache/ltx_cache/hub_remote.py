"""A repository on the Hugging Face Hub as a remote.

All reads of one `HubRemote` are of one commit, so they fit together whatever is pushed meanwhile. A push
uploads blobs, which nobody sees, and makes them visible together with the pointer, in one commit on top of
the commit that was read. If another commit came first, it reads again and tries again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadAddress, BadName, MissingBlob, RemoteFailed, UnknownBundle
from ltx_cache.hub import Absent, library, patiently, resuming, streamed
from ltx_cache.names import checked_digest, checked_name
from ltx_cache.remote import (
    CARD,
    CARD_LIMIT,
    POINTER_LIMIT,
    SIGNATURE_LIMIT,
    Publication,
    Source,
    blob_path,
    card_text,
    decode_pointer,
    encode_pointer,
    manifests,
    pointer_path,
    signature_folder,
    signature_path,
)

BRANCH = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")
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
        self._repo = repo
        self._revision = revision or BRANCH
        self._endpoint = endpoint
        self._lock = Lock()
        self._commit: str | None = None
        self._uploaded: list[Any] = []
        self._relied_on: dict[str, int] = {}
        self.url = f"hf://{repo}@{revision}" if revision else f"hf://{repo}"
        self.fixed = _COMMIT.fullmatch(self._revision) is not None

    def state(self) -> str:
        """The commit that is read."""
        with self._lock:
            if self._commit is None:
                info = self._ask(lambda api: api.repo_info(self._repo, revision=self._revision))
                self._commit = str(info.sha)
            return self._commit

    def create(self, *, private: bool) -> None:
        """Make the repository and the branch if they aren't there.

        Raises:
            BadAddress: The address is a commit, or the repository is public and shall be private.
            LtxError: The Hub refuses.
        """
        if self.fixed:
            raise BadAddress(f"{self.url} names a commit, which can't change", hint="name a branch, or none")
        try:
            info = self._ask(lambda api: api.repo_info(self._repo))
        except UnknownBundle:
            self._ask(lambda api: api.create_repo(self._repo, private=private or None, exist_ok=True))
        else:
            if private and not info.private:
                raise BadAddress(
                    f"{self.url} is a public repository",
                    hint="leave --private out, or make it private in its settings first",
                )
        try:
            self.state()
        except UnknownBundle:
            self._ask(lambda api: api.create_branch(self._repo, branch=self._revision, exist_ok=True))

    def sizes(self, digests: Iterable[str]) -> dict[str, int]:
        """Sizes of those blobs that it has; where the Hub knows a file's sha256, it is the blob's."""
        paths, found = [blob_path(digest) for digest in digests], dict[str, int]()
        for start in range(0, len(paths), _PATHS):
            for file in self._described(paths[start : start + _PATHS]):
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
            files = [self._file(blob_path(ref.sha256), source) for ref, source in some]
            self._upload(files)
            self._uploaded += files
            sent(sum(ref.size for ref, _ in some))

    def get(self, digest: str, offset: int) -> Iterator[bytes]:
        """The bytes of a blob from an offset on; goes on by itself where a connection broke.

        Raises:
            MissingBlob: It isn't there.
            LtxError: The Hub can't be reached or refuses.
        """
        try:
            yield from self._content(blob_path(digest), offset)
        except Absent:
            raise MissingBlob(digest, self.url) from None

    def names(self) -> list[str]:
        """Names of all bundles."""
        files = self._listed("bundles")
        names = (file.removesuffix(".json") for file in files if file.endswith(".json"))
        return sorted(name for name in names if _is_name(name))

    def read(self, name: str) -> BlobRef | None:
        """The manifest that a pointer names; None if there is no such pointer.

        Raises:
            BadEntry: The pointer is damaged.
            LtxError: The Hub can't be reached or refuses.
        """
        path = pointer_path(name)
        data = self._small(path, POINTER_LIMIT)
        return None if data is None else decode_pointer(f"{self.url}: {path}", data)

    def signers(self, manifest: str) -> list[str]:
        """Ids of the keys that signed a manifest."""
        return sorted(key for key in self._listed(signature_folder(manifest)) if _is_digest(key))

    def signature(self, manifest: str, key: str) -> bytes | None:
        """The signature of a manifest by a key; None if there is none."""
        return self._small(signature_path(manifest, key), SIGNATURE_LIMIT)

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
            if not files:
                return
            self._upload(files)
            done = self._api().create_commit(
                self._repo,
                files,
                commit_message=f"Publish bundle {publication.name}",
                revision=self._revision,
                parent_commit=self.state(),
            )
            self._commit, self._uploaded = str(done.oid), []

        patiently(self.url, commit)

    def _changed(self, publication: Publication) -> list[Any]:
        """The files of a publication, beside its blobs, that are not there yet."""
        manifest = publication.manifest.sha256
        wanted = {signature_path(manifest, key): data for key, data in publication.signatures.items()}
        wanted[pointer_path(publication.name)] = encode_pointer(publication.manifest)
        if publication.card is not None:
            earlier = card_text(self, self._small(CARD, CARD_LIMIT))
            bundles = manifests(self) | {publication.name: publication.data}
            wanted[CARD] = publication.card(earlier, bundles).encode()
        return [
            self._file(path, data) for path, data in wanted.items() if self._small(path, CARD_LIMIT) != data
        ]

    def _refresh(self) -> None:
        """Read the branch again; what was found there before has to be there still."""
        relied_on, self._commit, self._relied_on = self._relied_on, None, {}
        uploaded = {file.path_in_repo.rpartition("/")[2]: file for file in self._uploaded}
        found = self.sizes([*relied_on, *uploaded])
        if gone := relied_on.keys() - found.keys() - uploaded.keys():
            raise RemoteFailed(
                f"{self.url} lost blobs while this was sent: {', '.join(sorted(gone))}", hint="push again"
            )
        self._uploaded = [file for digest, file in uploaded.items() if digest not in found]

    def _upload(self, files: list[Any]) -> None:
        # A repository's .gitignore shall not leave out parts of a bundle.
        self._ask(
            lambda api: api.preupload_lfs_files(
                self._repo, files, revision=self._revision, free_memory=False, gitignore_content=""
            )
        )

    def _file(self, path: str, source: Source) -> Any:
        return library().CommitOperationAdd(path_in_repo=path, path_or_fileobj=source)

    def _listed(self, folder: str) -> list[str]:
        commit = self.state()

        try:
            tree = self._ask(lambda api: list(api.list_repo_tree(self._repo, folder, revision=commit)))
        except Absent:
            return []
        return [file.path.rpartition("/")[2] for file in tree]

    def _described(self, paths: list[str]) -> list[Any]:
        commit = self.state()
        found: list[Any] = self._ask(lambda api: api.get_paths_info(self._repo, paths, revision=commit))
        return found

    def _small(self, path: str, limit: int) -> bytes | None:
        data = bytearray()
        try:
            for piece in self._content(path, 0):
                data += piece
                if len(data) > limit:
                    raise RemoteFailed(f"{self.url}: {path} has more than {limit} bytes")
        except Absent:
            return None
        return bytes(data)

    def _content(self, path: str, offset: int) -> Iterator[bytes]:
        url = library().hf_hub_url(self._repo, path, revision=self.state(), endpoint=self._endpoint)
        return resuming(self.url, lambda start: streamed(url, start), offset)

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        return patiently(self.url, lambda: question(self._api()))

    def _api(self) -> Any:
        return library().HfApi(endpoint=self._endpoint, library_name="ltxbuild")


def _is_name(text: str) -> bool:
    """Whether a bundle can have this name; other files in a repository are nobody's business."""
    with suppress(BadName):
        return checked_name("bundle name", text) == text
    return False


def _is_digest(text: str) -> bool:
    with suppress(BadName):
        return checked_digest(text) == text
    return False
