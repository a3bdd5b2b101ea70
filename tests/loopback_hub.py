"""A Hub of our own on loopback: what huggingface_hub asks for to list, look at and download one model."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" * 6 + "c0de"
REPO = "owner/some-mixtral"


class LoopbackHub(ThreadingHTTPServer):
    """Serves the files of a folder as `REPO`, and counts what it gave."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.folder = folder
        self.token = ""
        """Asked for where it is not empty."""
        self.gated = False
        """Files are refused to everyone, the list of them is not."""
        self.ranges = True
        self.stop_at = 0
        """Where it is not 0: after so many bytes of a file, nothing more comes."""
        self.cuts = 0
        """How many answers with a file break off in the middle."""
        self.damage = False
        """The last byte of each weight file comes changed."""
        self.calls: Counter[str] = Counter()
        """By method and path."""
        self.sent: Counter[str] = Counter()
        """Bytes of each file."""
        self.counting = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def of_weights(self) -> int:
        """Bytes of weight files that were given."""
        return sum(count for name, count in self.sent.items() if name.endswith((".safetensors", ".bin", ".pt")))


@contextmanager
def hub_of(folder: Path) -> Iterator[LoopbackHub]:
    hub = LoopbackHub(folder)
    thread = threading.Thread(target=hub.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackHub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        with self.server.counting:
            self.server.calls[f"{self.command} {path}"] += 1
        files, api = f"/{REPO}/resolve/", f"/api/models/{REPO}/"
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._reply(401, b"", body, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif path.startswith(files):
            self._file(path[len(files) :].partition("/")[2], body)
        elif path in (api + "revision/main", api + f"revision/{COMMIT}"):
            self._reply(200, json.dumps({"id": REPO, "sha": COMMIT, "siblings": []}).encode(), body)
        elif path == api + f"tree/{COMMIT}":
            self._reply(200, json.dumps([self._entry(p) for p in self._paths()]).encode(), body)
        elif path.startswith(api + "revision/"):
            self._reply(404, b"", body, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        else:
            self._reply(404, b"", body, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})

    def _paths(self) -> list[Path]:
        return sorted(p for p in self.server.folder.rglob("*") if p.is_file())

    def _entry(self, path: Path) -> dict[str, object]:
        name = str(path.relative_to(self.server.folder))
        return {"type": "file", "path": name, "size": path.stat().st_size, "oid": hashlib.sha1(path.read_bytes()).hexdigest()}

    def _file(self, name: str, body: bool) -> None:
        path = self.server.folder / name
        headers = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if self.server.gated:
            self._reply(403, b"", body, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
            return
        if not path.is_file():
            self._reply(404, b"", body, headers | {"X-Error-Code": "EntryNotFound"})
            return
        data = path.read_bytes()
        headers |= {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
        status, asked = 200, self.headers.get("Range")
        if asked and body and self.server.ranges:
            begin, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last or len(data)) + 1, len(data))
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
            status, data = 206, data[int(begin) : end]
        if body:
            with self.server.counting:
                self.server.sent[name] += len(data)
                cut, self.server.cuts = self.server.cuts > 0, max(0, self.server.cuts - 1)
        if body and self.server.damage and name.endswith(".safetensors"):
            data = data[:-1] + bytes([data[-1] ^ 1])
        self._reply(status, data, body, headers, len(data) // 2 if body and cut and len(data) > 1000 else None)

    def _reply(self, status: int, data: bytes, body: bool, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body and cut is not None:
            self.wfile.write(data[:cut])
            self.close_connection = True
        elif body and self.server.stop_at and len(data) > self.server.stop_at:
            self.wfile.write(data[: self.server.stop_at])
            self.wfile.flush()
            while self.server.stop_at:
                time.sleep(0.02)
            self.close_connection = True
        elif body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return
