"""A home with a little of everything, and what tests need that treat a server badly."""

from __future__ import annotations

import io
import socket
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import httpx
import PIL.Image

from indexer.pipeline import index
from mmsearch.engine import Engine
from tests.colour_model import save_colour_model
from tests.sounds import save_sound
from tests.toy import COLOURS, tone

DEFAULT = "/v1/collections/default"
SEARCH = DEFAULT + "/search"
ITEMS = DEFAULT + "/items"


def png(colour: str = "red", size: tuple[int, int] = (32, 24)) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", size, COLOURS[colour]).save(buffer, "PNG")
    return buffer.getvalue()


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of so many white pixels, a thousandth of their size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * -(-width // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def make_home(folder: Path) -> Path:
    """Pictures, texts and a sound in the collection ``default``; ``folder / "model"`` is its model."""
    media = folder / "media"
    media.mkdir(parents=True)
    for colour in COLOURS:
        (media / f"{colour}.png").write_bytes(png(colour))
        (media / f"{colour}.txt").write_text(f"all about {colour} things")
    save_sound(media / "tone.wav", tone("green", seconds=1.0))
    with Engine.open(folder / "home", model=save_colour_model(folder / "model")) as engine:
        index(engine, [media])
    return folder / "home"


def connected(url: str) -> socket.socket:
    """A bare connection to the server."""
    return socket.create_connection(("127.0.0.1", httpx.URL(url).port or 80), timeout=20)


def request(path: str, body: bytes = b"", *, method: str = "POST", headers: str = "") -> bytes:
    """A request as bytes."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def figure(http: httpx.Client, name: str) -> float:
    """One figure of ``/metrics``, summed over its labels."""
    lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith(name)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def is_idle(http: httpx.Client) -> bool:
    """Whether the server is on nothing but this question."""
    return figure(http, "mmsearch_work{") == 0 and figure(http, "mmsearch_requests_running") == 1
