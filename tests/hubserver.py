"""A local server that speaks the part of the Hub's protocol that `huggingface_hub` uses, with faults.

Repositories are lists of commits, a commit is a mapping from paths to files. Files from `lfs_from` bytes on
are LFS files: uploaded by the batch protocol in one or several parts, and served by a redirect to another
host name, as a content delivery network does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

TOKEN = "hf_secret"
PIECE = 1 << 16


@dataclass
class Fault:
    """Something that goes wrong with requests that match.

    Attributes:
        method: Of the request.
        path: Regular expression that is searched in its path.
        status: Answer with this status; 0 to answer, but otherwise.
        drop_after: Bytes of the body after which the connection is closed; None to send all.
        garble: Whether to send other bytes of the same number.
        delay: Seconds to wait first.
        times: How many requests it befalls.
        late: Whether the request takes effect before it fails.
    """

    method: str
    path: str
    status: int = 0
    drop_after: int | None = None
    garble: bool = False
    delay: float = 0.0
    times: int = 1
    late: bool = False


@dataclass
class Repo:
    """A repository: its commits by id, the heads of its branches, and what was uploaded and not committed."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def files(self, revision: str) -> dict[str, bytes] | None:
        """The files of a branch or commit."""
        return self.commits.get(self.branches.get(revision, revision))

    def commit(self, branch: str, files: Mapping[str, bytes]) -> str:
        """Add a commit to a branch."""
        oid = hashlib.sha1(f"{branch} {len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[oid] = dict(files)
        self.branches[branch] = oid
        return oid


class Hub:
    """The server's state, for tests to look at and to change.

    Attributes:
        repos: By `ORG/REPO`.
        requests: Method, path and headers of every request.
        received: Bytes of request bodies.
        sent: Bytes of files.
        ranges: Whether requests for a part of a file are understood.
    """

    def __init__(self, lfs_from: int, part_size: int | None) -> None:
        self.lfs_from = lfs_from
        self.part_size = part_size
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.received = 0
        self.sent = 0
        self.ranges = True
        self.endpoint = ""
        self.lock = threading.RLock()

    def seed(self, name: str, files: Mapping[str, bytes]) -> Repo:
        """A repository with these files on `main`."""
        repo = self.repos.setdefault(name, Repo())
        repo.commit("main", {**(repo.files("main") or {}), **files})
        return repo

    def paths(self, method: str, pattern: str = "") -> list[str]:
        """Paths of the requests of a method that match."""
        return [path for verb, path, _ in self.requests if verb == method and re.search(pattern, path)]

    def fault(self, method: str, path: str) -> Fault | None:
        """What shall go wrong with a request."""
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None


class _Failed(Exception):
    """An answer that is an error: status and the Hub's code for it."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub
    fault: Fault | None

    def _handle(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size)
        self.hub.requests.append((self.command, path, {k.lower(): v for k, v in self.headers.items()}))
        self.hub.received += size
        self.fault = self.hub.fault("GET" if self.command == "HEAD" else self.command, path)
        if self.fault is not None:
            time.sleep(self.fault.delay)
        try:
            if self.fault is not None and self.fault.status and not self.fault.late:
                raise _Failed(self.fault.status, message="made to fail")
            self._route(path, query, body)
        except _Failed as failed:
            headers = {"X-Error-Code": failed.code, "X-Error-Message": failed.message}
            answer = json.dumps({"error": failed.message}).encode()
            self._send(failed.status, answer, {k: v for k, v in headers.items() if v})

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815

    def _route(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        with self.hub.lock:
            for pattern, method in ROUTES:
                match = re.fullmatch(pattern, path)
                if match is not None:
                    answer = method(self, *match.groups(), query, body)
                    break
            else:
                raise _Failed(404, message=f"no such address: {path}")
        if self.fault is not None and self.fault.status and self.fault.late:
            raise _Failed(self.fault.status, message="made to fail late")
        if answer is not None:
            self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _repo(self, name: str) -> Repo:
        repo = self.hub.repos.get(name)
        allowed = repo is not None and (not repo.private or self._authorized())
        if repo is None or not allowed:
            raise _Failed(401 if not self._authorized() else 404, "RepoNotFound", "Repository not found")
        return repo

    def _authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _files(self, name: str, revision: str) -> dict[str, bytes]:
        files = self._repo(name).files(revision)
        if files is None:
            raise _Failed(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return files

    def create(self, query: Any, body: bytes) -> Any:
        if not self._authorized():
            raise _Failed(401, message="Invalid credentials")
        data = json.loads(body)
        name = f"{data['organization']}/{data['name']}"
        if name in self.hub.repos:
            raise _Failed(409, message="You already created this model repo")
        private = data.get("private", data.get("visibility") == "private")  # older and newer clients
        repo = self.hub.repos[name] = Repo(private=bool(private))
        repo.commit("main", {".gitattributes": b"*.bin filter=lfs\n"})
        return {"url": f"{self.hub.endpoint}/{name}"}

    def info(self, name: str, revision: str | None, query: Any, body: bytes) -> Any:
        files = self._files(name, revision or "main")
        repo = self.hub.repos[name]
        oid = repo.branches.get(revision or "main", revision)
        listing = [{"rfilename": path} for path in sorted(files)]
        return {"id": name, "modelId": name, "sha": oid, "private": repo.private, "siblings": listing}

    def branch(self, name: str, branch: str, query: Any, body: bytes) -> Any:
        repo = self._repo(name)
        if branch in repo.branches:
            raise _Failed(409, message="Reference already exists")
        repo.branches[branch] = repo.branches["main"]
        return {}

    def preupload(self, name: str, revision: str, query: Any, body: bytes) -> Any:
        there, data = self._files(name, revision), json.loads(body)
        ignored = data.get("gitIgnore", there.get(".gitignore", b"").decode()).split()
        return {"files": [self._mode(file, there, ignored) for file in data["files"]]}

    def _mode(self, file: Any, there: Mapping[str, bytes], ignored: list[str]) -> Any:
        path, mode = file["path"], "lfs" if file["size"] >= self.hub.lfs_from else "regular"
        ignore = any(path.startswith(rule) for rule in ignored)
        found = {"path": path, "uploadMode": mode, "shouldIgnore": ignore}
        return found | ({"oid": _oid(there[path], mode)} if path in there else {})

    def batch(self, name: str, query: Any, body: bytes) -> Any:
        repo, objects = self._repo(name), []
        for item in json.loads(body)["objects"]:
            oid, size = item["oid"], item["size"]
            href = f"{self.hub.endpoint}/upload/{name}/{oid}"
            if oid in repo.uploaded or any(_sha(data) == oid for data in self._lfs(repo)):
                objects.append({"oid": oid, "size": size})
                continue
            header: dict[str, str] = {}
            if self.hub.part_size is not None:
                count = -(-size // self.hub.part_size)
                header = {str(n): f"{href}/{n}" for n in range(1, count + 1)}
                header["chunk_size"] = str(self.hub.part_size)
            verify = {"href": f"{self.hub.endpoint}/verify/{name}"}
            actions = {"upload": {"href": href, "header": header}, "verify": verify}
            objects.append({"oid": oid, "size": size, "actions": actions})
        return {"transfer": "basic", "objects": objects}

    def _lfs(self, repo: Repo) -> Iterator[bytes]:
        for files in repo.commits.values():
            yield from (data for data in files.values() if len(data) >= self.hub.lfs_from)

    def upload(self, name: str, oid: str, part: str | None, query: Any, body: bytes) -> Any:
        repo = self._repo_by_link(name)
        if self.command == "POST":  # all parts are there
            parts = repo.parts[oid]
            body = b"".join(parts[number] for number in sorted(parts))
        if part is not None:
            repo.parts.setdefault(oid, {})[int(part)] = body
            self._send(200, b"", {"ETag": f'"{_sha(body)}"'})
            return None
        if _sha(body) != oid:
            raise _Failed(400, message="the upload has another sha256")
        repo.uploaded[oid] = body
        return {}

    def _repo_by_link(self, name: str) -> Repo:
        return self.hub.repos[name]  # upload links are signed, they need no token

    def verify(self, name: str, query: Any, body: bytes) -> Any:
        data = json.loads(body)
        if len(self._repo(name).uploaded.get(data["oid"], b"")) != data["size"]:
            raise _Failed(404, message="it was not uploaded")
        return {}

    def commit(self, name: str, revision: str, query: Any, body: bytes) -> Any:
        repo, files = self._repo(name), dict(self._files(name, revision))
        lines = [json.loads(line) for line in body.splitlines()]
        if revision not in repo.branches:
            raise _Failed(400, message="a commit can't be committed to")
        if lines[0]["value"].get("parentCommit", repo.branches[revision]) != repo.branches[revision]:
            raise _Failed(412, message="A commit has happened since. Please refresh and try again.")
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "lfsFile":
                known = repo.uploaded | {_sha(data): data for data in self._lfs(repo)}
                files[value["path"]] = known[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        oid = repo.commit(revision, files)
        return {"commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}", "commitOid": oid}

    def paths_info(self, name: str, revision: str, query: Any, body: bytes) -> Any:
        files, wanted = self._files(name, revision), parse_qs(body.decode())["paths"]
        return [self._described(path, files[path]) for path in wanted if path in files]

    def tree(self, name: str, revision: str, folder: str | None, query: Any, body: bytes) -> Any:
        files, prefix = self._files(name, revision), f"{folder}/" if folder else ""
        found = [path for path in sorted(files) if path.startswith(prefix)]
        if not found:
            raise _Failed(404, "EntryNotFound", f"{folder} does not exist")
        deep = "recursive" in query and query["recursive"][0].lower() == "true"
        return [self._described(p, files[p]) for p in found if deep or "/" not in p.removeprefix(prefix)]

    def _described(self, path: str, data: bytes) -> Any:
        found = {"type": "file", "path": path, "size": len(data), "oid": _oid(data, "regular")}
        if len(data) < self.hub.lfs_from:
            return found
        return found | {"lfs": {"oid": _sha(data), "size": len(data), "pointerSize": 130}}

    def yaml(self, query: Any, body: bytes) -> Any:
        return {"errors": [], "warnings": []}

    def resolve(self, name: str, revision: str, path: str, query: Any, body: bytes) -> None:
        files = self._files(name, revision)
        if path not in files:
            raise _Failed(404, "EntryNotFound", f"{path} does not exist")
        data, repo = files[path], self.hub.repos[name]
        oid = repo.branches.get(revision, revision)
        if self.command == "GET" and len(data) >= self.hub.lfs_from:
            content = self.hub.endpoint.replace("127.0.0.1", "localhost") + f"/cdn/{name}/{_sha(data)}"
            self._send(302, b"", {"Location": content, "X-Repo-Commit": oid})
            return
        etag = _sha(data) if len(data) >= self.hub.lfs_from else _oid(data, "regular")
        self._file(data, {"ETag": f'"{etag}"', "X-Repo-Commit": oid})

    def content(self, name: str, oid: str, query: Any, body: bytes) -> None:
        data = next(data for data in self._lfs(self.hub.repos[name]) if _sha(data) == oid)
        self._file(data, {"ETag": f'"{oid}"'})

    def _file(self, data: bytes, headers: dict[str, str]) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        status, start, total = 200, 0, len(data)
        if match is not None and self.hub.ranges:
            start, status = int(match[1]), 206
            data = data[start : int(match[2]) + 1 if match[2] else None]
            headers |= {"Content-Range": f"bytes {start}-{total - 1}/{total}"}
        if self.fault is not None and self.fault.garble:
            data = bytes(byte ^ 1 for byte in data)
        self._send(status, data, headers, count=True)

    def _send(self, status: int, data: bytes, headers: Mapping[str, str], *, count: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.fault.drop_after if self.fault is not None and count else None
        view = memoryview(data) if limit is None else memoryview(data)[:limit]
        self.wfile.write(view)
        if count:
            self.hub.sent += len(view)
        if limit is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


NAME, REV = r"([\w.-]+/[\w.-]+)", r"([\w.%-]+)"
ROUTES = (
    (r"/api/repos/create", _Handler.create),
    (r"/api/validate-yaml", _Handler.yaml),
    (rf"/api/models/{NAME}/branch/{REV}", _Handler.branch),
    (rf"/api/models/{NAME}/preupload/{REV}", _Handler.preupload),
    (rf"/api/models/{NAME}/commit/{REV}", _Handler.commit),
    (rf"/api/models/{NAME}/paths-info/{REV}", _Handler.paths_info),
    (rf"/api/models/{NAME}/tree/{REV}(?:/(.+))?", _Handler.tree),
    (rf"/api/models/{NAME}(?:/revision/{REV})?", _Handler.info),
    (rf"/{NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (rf"/upload/{NAME}/(\w+)(?:/(\d+))?", _Handler.upload),
    (rf"/verify/{NAME}", _Handler.verify),
    (rf"/cdn/{NAME}/(\w+)", _Handler.content),
    (rf"/{NAME}/resolve/{REV}/(.+)", _Handler.resolve),
)


@cache
def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _oid(data: bytes, mode: str) -> str:
    """What the Hub names a file by: sha256 if it is an LFS file, else git's name of the bytes."""
    return _sha(data) if mode == "lfs" else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serve(lfs_from: int = 256, part_size: int | None = None) -> Iterator[Hub]:
    """Run a server during a block.

    Args:
        lfs_from: Size from which files are LFS files.
        part_size: Size of the parts in which these are uploaded; None for one piece.
    """
    hub = Hub(lfs_from, part_size)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def point_at(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `huggingface_hub` in this process talk to a server; it reads its settings once, at import."""
    import huggingface_hub
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("ltx_cache.hub.WAITS", (0.01,) * 5)


def environment(hub: Hub, folder: Path) -> dict[str, str]:
    """The same for a process of its own."""
    return {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(folder),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
    }
