"""A server that speaks what huggingface_hub asks of a hub, and a proxy on the way to it; both real, on this machine."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

__all__ = ["Hub", "Request", "proxy", "serving"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".pth")


class Request(NamedTuple):
    """What was asked for. ``first`` is the byte that a range begins with."""

    method: str
    path: str
    first: int


class Hub:
    """Repositories and what goes wrong with them.

    ``files`` is repository -> path -> content. Large files lie on another host, as the hub has it, and are told by
    their sha256. ``cut`` is after how many bytes the connection breaks, the next few times that a large file is
    fetched; after the last of them ``hang`` makes the server send nothing more instead. ``corrupt`` turns the last
    byte of what is sent around.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.cut: list[int] = []
        self.hang = False
        self.corrupt: set[str] = set()
        self.requests: list[Request] = []
        self.reached = threading.Event()
        self.url = ""

    def put(self, repo: str, folder: Path) -> None:
        """Add a repository with the files of a folder."""
        self.files[repo] = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def fetched(self, suffix: str) -> list[Request]:
        """The requests for the bytes of files that end so."""
        return [asked for asked in self.requests if asked.method == "GET" and asked.path.endswith(suffix)]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve ``hub`` at ``hub.url`` while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
            hub.requests.append(Request(self.command, path, self.first_byte()))
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+|[^/]+)(?:/revision/[^/]+)?", path):
                return self.listing(match[1])
            if match := re.fullmatch(r"/([^/]+/[^/]+|[^/]+)/resolve/([^/]+)/(.+)", path):
                return self.resolve(match[1], match[3])
            if match := re.fullmatch(r"/cdn/([^/]+/[^/]+|[^/]+)/(.+)", path):
                return self.content(hub.files[match[1]][match[2]], match[2])
            self.refuse("EntryNotFound")

        def listing(self, repo: str) -> None:
            if repo not in hub.files:
                return self.refuse("RepoNotFound", 401)
            siblings = [{"rfilename": name} for name in hub.files[repo]]
            told = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings}
            self.content(json.dumps(told).encode(), "")

        def resolve(self, repo: str, name: str) -> None:
            if repo not in hub.files:
                return self.refuse("RepoNotFound", 401)
            if repo in hub.gated:
                return self.refuse("GatedRepo", 403)
            if name not in hub.files[repo]:
                return self.refuse("EntryNotFound")
            content = hub.files[repo][name]
            if not name.endswith(LARGE):
                return self.content(content, name)
            self.send_response(302)
            port = int(hub.url.rpartition(":")[2])
            self.send_header("Location", f"http://localhost:{port}/cdn/{repo}/{name}")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def content(self, content: bytes, name: str) -> None:
            first = self.first_byte()
            self.send_response(206 if first else 200)
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            self.send_header("ETag", f'"{blob}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content) - first))
            self.end_headers()
            if self.command == "HEAD":
                return
            if name in hub.corrupt:
                content = content[:-1] + bytes([content[-1] ^ 255])
            body = content[first:]
            if hub.cut and name.endswith(LARGE):
                self.wfile.write(body[: hub.cut.pop(0)])
                self.wfile.flush()
                if not hub.cut and hub.hang:
                    hub.reached.set()
                    self.rfile.read(1)  # until the other side is gone
                self.close_connection = True
                return
            self.wfile.write(body)

        def first_byte(self) -> int:
            found = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
            return int(found[1]) if found else 0

        def refuse(self, code: str, status: int = 404) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with _served(Handler) as port:
        hub.url = f"http://127.0.0.1:{port}"
        yield hub


@contextmanager
def proxy(to: str) -> Iterator[tuple[str, list[str]]]:
    """An HTTP proxy that looks every name up as that of the server ``to``. Yields its address and what went through."""
    seen: list[str] = []
    server = urllib.parse.urlsplit(to)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            seen.append(self.path)
            asked = urllib.parse.urlsplit(self.path)
            connection = http.client.HTTPConnection(str(server.hostname), server.port)
            headers = {key: value for key, value in self.headers.items() if key != "Proxy-Connection"}
            connection.request(
                self.command, asked.path + ("?" + asked.query if asked.query else ""), headers=headers
            )
            answer = connection.getresponse()
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(answer.read())
            connection.close()

    with _served(Handler) as port:
        yield f"http://127.0.0.1:{port}", seen


@contextmanager
def _served(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
