"""A local stand-in for the Hugging Face hub, which takes repositories and commits over HTTP and keeps the files."""

import base64
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHub(ThreadingHTTPServer):
    """Repositories by `type/USER/NAME`: how they were created, and their files."""

    def __init__(self, *, token: str = "secret") -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.token = token
        self.created: dict[str, dict[str, Any]] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.messages: list[str] = []
        self.unknown: list[str] = []

    @property
    def endpoint(self) -> str:
        """Address of the hub."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def fake_hub(**options: Any) -> Generator[FakeHub]:
    """A hub that answers until the block ends."""
    with FakeHub(**options) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Requests(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self.server.unknown.append(f"GET {self.path}")
        self._answer(404, {"error": "not found"})

    def do_POST(self) -> None:
        body = self._body()
        if self.headers.get("authorization") != f"Bearer {self.server.token}":
            self._answer(401, {"error": "Invalid credentials"})
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif match := re.fullmatch(
            r"/api/(space|dataset)s/([^/]+/[^/]+)/(preupload|commit)/main", self.path.split("?")[0]
        ):
            kind, name, what = match.groups()
            if what == "preupload":
                asked = json.loads(body)["files"]
                files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked]
                self._answer(200, {"files": files})
            else:
                self._commit(f"{kind}/{name}", body)
        else:
            self.server.unknown.append(f"POST {self.path}")
            self._answer(200, {})

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
        self.server.created[f"{wanted['type']}/{name}"] = wanted
        self._answer(200, {"url": f"{self.server.endpoint}/{wanted['type']}s/{name}"})

    def _commit(self, repository: str, body: bytes) -> None:
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "header":
                self.server.messages.append(entry["value"]["summary"])
            elif entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                self.server.files.setdefault(repository, {})[entry["value"]["path"]] = content
        kind, _, name = repository.partition("/")
        url = f"{self.server.endpoint}/{kind}s/{name}/commit/{'0' * 40}"
        self._answer(200, {"success": True, "commitOid": "0" * 40, "commitUrl": url, "hookOutput": ""})

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _answer(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
