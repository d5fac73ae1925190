"""A picture server on this machine that answers as well or as badly as it is told to."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import PIL.Image

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def picture(colour: str, size: int = 16) -> bytes:
    """A PNG of one colour."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (size, size), COLOURS[colour]).save(file, "PNG")
    return file.getvalue()


class Shop(ThreadingHTTPServer):
    """``pictures`` by path; ``asked`` counts requests by path; ``headers`` are those of the last one."""

    daemon_threads = True

    def __init__(self, family: str = "127.0.0.1") -> None:
        super().__init__((family, 0), _Handler)
        self.pictures: dict[str, bytes] = {f"/{name}.png": picture(name) for name in COLOURS}
        self.versions: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.headers: dict[str, str] = {}
        self.at_once = 0
        self.most_at_once = 0
        self.lock = threading.Lock()
        self.stop = threading.Event()

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Shop

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        shop = self.server
        path, _, query = self.path.partition("?")
        with shop.lock:
            shop.asked[path] += 1
            count = shop.asked[path]
            shop.headers = {name.lower(): value for name, value in self.headers.items()}
            shop.at_once += 1
            shop.most_at_once = max(shop.most_at_once, shop.at_once)
        try:
            self.answer(path, query, count)
        finally:
            with shop.lock:
                shop.at_once -= 1

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def answer(self, path: str, query: str, count: int) -> None:
        shop = self.server
        if path in shop.pictures:
            etag = shop.versions.get(path)
            if etag and self.headers.get("If-None-Match") == etag:
                return self.send(304, ETag=etag)
            return self.send(
                200, shop.pictures[path], Content_Type="image/png", **({"ETag": etag} if etag else {})
            )
        if path == "/dated.png":
            date = "Wed, 01 Jan 2025 00:00:00 GMT"
            if self.headers.get("If-Modified-Since") == date:
                return self.send(304)
            return self.send(200, picture("red"), Last_Modified=date)
        if path.startswith("/status/"):
            return self.send(int(path.rpartition("/")[2]))
        if path.startswith("/busy/"):  # /busy/429/2: twice busy, then there
            _, _, status, times = path.split("/")
            if count <= int(times):
                return self.send(int(status), Retry_After=unquote(query))
            return self.send(200, picture("green"), Content_Type="image/png")
        if path == "/to":
            return self.send(302, Location=query)
        if path == "/loop":
            return self.send(302, Location="/loop")
        if path == "/page":
            return self.send(200, b"<html>gone</html>", Content_Type="text/html; charset=utf-8")
        if path == "/odd.png":
            return self.send(200, b"<html>gone</html>", Content_Type="image/png")
        if path == "/packed.png":
            return self.send(200, picture("red"), Content_Encoding="gzip")
        if path == "/empty.png":
            return self.send(200)
        if path == "/huge.png":  # says nothing of its length, and never ends
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            while not shop.stop.is_set():
                self.wfile.write(b"\0" * 65536)
        if path == "/claims.png":
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
            return None
        if path == "/torn.png":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"torn")
            self.close_connection = True
            return None
        if path == "/dripping.png":  # a byte now and then: no read ever waits long
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            while not shop.stop.wait(0.05):
                self.wfile.write(b"\0")
                self.wfile.flush()
        if path == "/dripping-headers.png":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not shop.stop.wait(0.05):
                self.wfile.write(b"X: y\r\n")
                self.wfile.flush()
        if path == "/slow.png":
            time.sleep(0.2)
            return self.send(200, picture("blue"))
        if path == "/silent.png":
            shop.stop.wait(30)
            return None
        return self.send(404)


@contextlib.contextmanager
def shop() -> Iterator[Shop]:
    """The server, on a free port of the loopback address."""
    server = Shop()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
