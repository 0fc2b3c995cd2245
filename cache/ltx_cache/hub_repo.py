"""One repository on the Hugging Face Hub: questions about a commit of it, and uploads to a branch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any

from ltx_cache.errors import BadAddress, UnknownBundle
from ltx_cache.hub import Absent, library, patiently, resuming, streamed
from ltx_cache.remote import Source, TooLarge

BRANCH = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubRepo:
    """A model repository at a branch, tag or commit.

    Every method raises `LtxError` if the Hub can't be reached or refuses.

    Attributes:
        url: Its address.
        fixed: Whether the revision is a commit.
    """

    def __init__(self, name: str, revision: str | None, endpoint: str | None) -> None:
        self._name = name
        self._revision = revision or BRANCH
        self._endpoint = endpoint
        self._lock = Lock()
        self._commit: str | None = None
        self.url = f"hf://{name}@{revision}" if revision else f"hf://{name}"
        self.fixed = _COMMIT.fullmatch(self._revision) is not None

    def commit(self) -> str:
        """The commit that all questions are about: the branch's latest when it was first needed."""
        with self._lock:
            if self._commit is None:
                info = self._ask(lambda api: api.repo_info(self._name, revision=self._revision))
                self._commit = str(info.sha)
            return self._commit

    def forget(self) -> None:
        """Look for the latest commit again."""
        self._commit = None

    def create(self, *, private: bool) -> None:
        """Make the repository and the branch if they aren't there.

        Raises:
            BadAddress: The address is a commit, or the repository is public and shall be private.
            LtxError: The Hub refuses.
        """
        if self.fixed:
            raise BadAddress(f"{self.url} names a commit, which can't change", hint="name a branch, or none")
        try:
            info = self._ask(lambda api: api.repo_info(self._name))
        except UnknownBundle:
            self._ask(lambda api: api.create_repo(self._name, private=private or None, exist_ok=True))
        else:
            if private and not info.private:
                raise BadAddress(
                    f"{self.url} is a public repository",
                    hint="leave --private out, or make it private in its settings first",
                )
        try:
            self.commit()
        except UnknownBundle:
            self._ask(lambda api: api.create_branch(self._name, branch=self._revision, exist_ok=True))

    def described(self, paths: list[str]) -> list[Any]:
        """What the Hub knows of those files that are there."""
        commit = self.commit()
        found: list[Any] = self._ask(lambda api: api.get_paths_info(self._name, paths, revision=commit))
        return found

    def listed(self, folder: str) -> list[str]:
        """Names of the files in a folder; none if there is no such folder."""
        commit = self.commit()
        try:
            tree = self._ask(lambda api: list(api.list_repo_tree(self._name, folder, revision=commit)))
        except Absent:
            return []
        return [file.path.rpartition("/")[2] for file in tree]

    def small(self, path: str, limit: int) -> bytes | None:
        """The bytes of a file; None if there is none.

        Raises:
            TooLarge: It has more than `limit`.
            LtxError: The Hub can't be reached or refuses.
        """
        data = bytearray()
        try:
            for piece in self.content(path, 0):
                data += piece
                if len(data) > limit:
                    raise TooLarge(f"{self.url}: {path}", limit)
        except Absent:
            return None
        return bytes(data)

    def content(self, path: str, offset: int) -> Iterator[bytes]:
        """The bytes of a file from an offset on; goes on by itself where a connection broke.

        Raises:
            Absent: There is no such file.
            LtxError: The Hub can't be reached or refuses.
        """
        url = library().hf_hub_url(self._name, path, revision=self.commit(), endpoint=self._endpoint)
        return resuming(self.url, lambda start: streamed(url, start), offset)

    def file(self, path: str, source: Source) -> Any:
        """A file to be uploaded and committed."""
        return library().CommitOperationAdd(path_in_repo=path, path_or_fileobj=source)

    def upload(self, files: list[Any]) -> None:
        """Upload those files that the Hub keeps apart from commits; nobody sees them yet."""
        # A repository's .gitignore shall not leave out parts of a bundle.
        self._ask(
            lambda api: api.preupload_lfs_files(
                self._name, files, revision=self._revision, free_memory=False, gitignore_content=""
            )
        )

    def add(self, files: list[Any], message: str) -> None:
        """Commit files on top of the commit that was read, by one request; errors are the client's."""
        done = self._api().create_commit(
            self._name,
            files,
            commit_message=message,
            revision=self._revision,
            parent_commit=self.commit(),
        )
        self._commit = str(done.oid)

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        return patiently(self.url, lambda: question(self._api()))

    def _api(self) -> Any:
        return library().HfApi(endpoint=self._endpoint, library_name="ltxbuild")
