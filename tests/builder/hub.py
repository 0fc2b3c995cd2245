"""A local server that speaks the part of the Hub's protocol that downloads use."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve `folder/ORG/REPO/**` as model repositories; the value is the endpoint."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                describe = self.tree if "tree" in parts else self.repo
                self.send(200, describe(folder / parts[2] / parts[3]), {}, body=body)
                return
            path = folder.joinpath(*parts[:2], *parts[4:])
            if len(parts) < 5 or parts[2] != "resolve" or not path.is_file():
                self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body=body)
                return
            data = path.read_bytes()
            etag = hashlib.sha256(data).hexdigest()
            self.send(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body=body)

        def repo(self, root: Path) -> bytes:
            files = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
            name = "/".join(root.parts[-2:])
            listing = [{"rfilename": file} for file in files]
            return json.dumps({"id": name, "modelId": name, "sha": COMMIT, "siblings": listing}).encode()

        def tree(self, root: Path) -> bytes:
            files = [p for p in sorted(root.rglob("*")) if p.is_file()]
            entries = [
                {"type": "file", "path": str(p.relative_to(root)), "size": p.stat().st_size, "oid": COMMIT}
                for p in files
            ]
            return json.dumps(entries).encode()

        def send(self, code: int, data: bytes, headers: dict[str, str], *, body: bool) -> None:
            self.send_response(code)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
