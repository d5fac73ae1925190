"""Pictures and recordings that are none, or more than they seem: refused, and nothing is held or broken by them."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest
import soundfile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mmsearch.engine import Engine
from mmsearch.server.media import Thumbnails
from mmsearch.server.options import Options
from tests.abused import DEFAULT, ITEMS, SEARCH, is_idle, make_home, png, png_bomb
from tests.serving import serving
from tests.sounds import save_sound
from tests.toy import tone

FILES = SEARCH + "/files"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("uploads"))


@pytest.fixture(scope="module")
def http(home: Path) -> Iterator[httpx.Client]:
    options = Options(
        max_body=4_000_000,
        max_pixels=1_000_000,
        max_pictures_pixels=3_000_000,
        max_seconds_of_sound=20,
        rate=10**9,
    )
    with serving(home, options) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client
        assert client.post(SEARCH, json={"text": "red"}).status_code == 200
        assert is_idle(client)


def sent(http: httpx.Client, data: bytes, name: str, kind: str) -> httpx.Response:
    return http.post(FILES, data={"query": '{"k": 1}'}, files={"files": (name, data, kind)})


def picture(http: httpx.Client, data: bytes, name: str = "x.png") -> int:
    return sent(http, data, name, "image/png").status_code


def sound(http: httpx.Client, data: bytes, name: str = "x.wav") -> int:
    return sent(http, data, name, "audio/wav").status_code


def saved(image: PIL.Image.Image, format: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **more)
    return buffer.getvalue()


def wav(seconds: float, rate: int = 16_000, channels: int = 1, format: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    frames = np.full((int(seconds * rate), channels), 0.1, np.float32)
    frames[::2] *= -1
    soundfile.write(buffer, frames, rate, format=format)
    return buffer.getvalue()


SMALL = PIL.Image.new("RGB", (32, 24), "red")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"])
def test_pictures_cut_short_anywhere_are_refused_or_read(http: httpx.Client, format: str) -> None:
    whole = saved(PIL.Image.effect_noise((64, 48), 50).convert("RGB"), format)
    assert picture(http, whole) == 200
    for length in (1, 3, 8, 16, len(whole) // 4, len(whole) // 2, len(whole) - 1):
        assert picture(http, whole[:length]) in (200, 415), length


def test_what_is_no_picture_is_refused_whatever_it_is_called(http: httpx.Client) -> None:
    for data in (
        b"",
        b"\0",
        b"\0" * 100_000,
        b"%PDF-1.7\n",
        b"PK\x03\x04" + b"\0" * 100,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
        b"GIF89a<script>alert(1)</script>",
        b"\x7fELF" + b"\0" * 64,
        wav(0.1),
    ):
        assert picture(http, data, "holiday.jpg") == 415, data[:20]
    response = http.post(SEARCH, json={"terms": [{"image": {"base64": ""}}]})
    assert response.status_code == 415
    response = http.post(SEARCH, json={"terms": [{"image": {"base64": "data:text/html,<b>"}}]})
    assert response.status_code == 422


def test_a_picture_that_is_something_else_as_well_is_only_a_picture(http: httpx.Client) -> None:
    for tail in (b"<script>alert(1)</script>", b"PK\x05\x06" + b"\0" * 18, b"<?php system($_GET['c']); ?>"):
        data = saved(SMALL, "JPEG") + tail
        assert picture(http, data, "x.php") == 200
        item = {"key": "two", "images": [{"base64": base64.b64encode(data).decode()}]}
        assert http.post(ITEMS, json={"items": [item]}).json()["rejected"] == []
        parts = http.get(ITEMS, params={"key": "two"}).json()["items"][0]["parts"]
        shown = http.get("/" + next(part["thumbnail"] for part in parts if "thumbnail" in part))
        assert shown.headers["content-type"] == "image/webp"
        assert tail not in shown.content


def test_bombs_are_refused_before_they_are_unpacked(http: httpx.Client) -> None:
    assert picture(http, png_bomb(900, 900)) == 200
    assert picture(http, png_bomb(20_000, 20_000)) in (413, 415)
    for width, height in ((2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (1, 2**31 - 1), (0, 0), (60_000, 60_000)):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        claims = png()[:16] + header + png()[29:]
        assert picture(http, claims) in (413, 415), (width, height)
    gif = bytearray(saved(SMALL, "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    assert picture(http, bytes(gif)) in (413, 415)
    bmp = bytearray(saved(SMALL, "BMP"))
    bmp[18:26] = struct.pack("<ii", 50_000, -50_000)
    assert picture(http, bytes(bmp)) in (413, 415)
    assert picture(http, b"P6 99999 99999 255\n") in (413, 415)
    assert picture(http, b"P5 " + b"9" * 5000 + b" 1 255\n") == 415


def test_many_large_pictures_are_too_many(http: httpx.Client) -> None:
    large = base64.b64encode(png_bomb(1000, 900)).decode()

    def status(count: int) -> int:
        return http.post(SEARCH, json={"terms": [{"image": {"base64": large}}] * count}).status_code

    assert [status(3), status(4)] == [200, 413]
    encoded = http.post(DEFAULT + "/encode", json={"images": [{"base64": large}] * 4})
    assert encoded.status_code == 413


def test_of_an_animation_the_first_frame_counts(http: httpx.Client) -> None:
    frames = [PIL.Image.new("RGB", (32, 24), colour) for colour in ("red", *["blue"] * 300)]
    for format in ("GIF", "WEBP", "PNG"):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:])
        response = http.post(
            FILES,
            data={"query": json.dumps({"k": 1, "modality": "image"})},
            files={"files": ("a", data, "image/gif")},
        )
        assert response.json()["hits"][0]["item"]["title"] == "red", format


def test_a_wrong_picture_of_one_product_stops_no_other(http: httpx.Client) -> None:
    def image(data: bytes) -> list[dict[str, str]]:
        return [{"base64": base64.b64encode(data).decode()}]

    items: list[dict[str, Any]] = [
        {"key": "good", "images": image(png("blue"))},
        {"key": "none", "images": image(b"no picture")},
        {"key": "empty", "images": [{"base64": ""}]},
        {"key": "short", "title": "red", "images": image(png()[:40])},
    ]
    told = http.post(ITEMS, json={"items": items})
    assert told.status_code == 200, told.text
    assert {one["key"] for one in told.json()["rejected"]} >= {"none", "empty"}
    assert told.json()["added"] >= 1
    assert http.get(ITEMS, params={"key": "good"}).status_code == 200


def test_a_bomb_among_indexed_pictures_has_no_small_copy_and_leaves_no_lock(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    with Engine.open(home, create=False) as engine:
        item = next(item for item in engine.items() if item.key.endswith("red.png"))
    with serving(home, Options(max_pixels=100_000)) as url, httpx.Client(base_url=url, timeout=30) as http:
        shown = f"{ITEMS}/{item.id}/parts/{item.parts[0].id}/thumbnail"
        assert http.get(shown, params={"size": 320}).status_code == 200
        Path(item.key).write_bytes(png_bomb(2000, 2000))
        for _ in range(3):
            assert http.get(shown, params={"size": 640}).status_code == 415
        Path(item.key).unlink()
        assert http.get(shown, params={"size": 640}).status_code == 404
    thumbnails = Thumbnails(home, max_pixels=100_000)
    with Engine.open(home, create=False) as engine, pytest.raises(Exception, match="is not among"):
        thumbnails.get(engine, item, item.parts[0], 640)
    assert thumbnails._locks == {}


def test_recordings_that_are_none_are_refused(http: httpx.Client) -> None:
    for data in (
        b"",
        b"RIFF",
        b"RIFF\xff\xff\xff\xffWAVE",
        b"fLaC" + b"\0" * 60,
        b"OggS" + b"\0" * 60,
        png(),
    ):
        assert sound(http, data) == 415, data[:10]
    whole = wav(1.0)
    for length in (4, 12, 20, 40, 44):
        assert sound(http, whole[:length]) == 415, length
    assert sound(http, whole[: len(whole) // 2]) == 200
    for rate in (0, 1, 2**31 - 1):
        changed = whole[:24] + struct.pack("<I", rate) + whole[28:]
        assert sound(http, changed) in (413, 415), rate
    for channels in (0, 65_535):
        changed = whole[:22] + struct.pack("<H", channels) + whole[24:]
        assert sound(http, changed) in (413, 415), channels
    assert sound(http, wav(0.5)[:44] + np.full(8000, np.nan, np.float32).tobytes()) in (200, 415)


def test_recordings_that_last_or_claim_to_last_too_long_are_refused(http: httpx.Client) -> None:
    assert sound(http, wav(15)) == 200
    assert sound(http, wav(25)) == 413
    assert sound(http, wav(3, rate=192_000)) == 200
    flac = wav(2000, rate=8000, format="FLAC")
    assert len(flac) < 4_000_000, "half an hour in little room"
    assert sound(http, flac) == 413
    claims = bytearray(wav(1.0, format="FLAC"))  # bits 108 to 143 of its head are how many samples there are
    claims[21] = (claims[21] & 0xF0) | 0x0F
    assert sound(http, bytes(claims)) == 413
    hidden = bytearray(flac)
    hidden[21] &= 0xF0
    hidden[22:26] = struct.pack(">I", 1000)
    assert sound(http, bytes(hidden)) in (200, 413, 415)
    assert sound(http, wav(18, rate=48_000, channels=4)) == 413, "as much work as 36 s of two channels"


def test_a_film_with_hours_of_sound_is_refused(http: httpx.Client, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "long.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        for n in range(0, 60 * 8000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, n
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    assert sound(http, path.read_bytes(), "x.m4a") == 413


def test_speech_has_a_shorter_limit(http: httpx.Client) -> None:
    def status(data: bytes) -> int:
        return http.post("/v1/transcribe", files={"file": ("a.flac", data, "audio/flac")}).status_code

    assert status(wav(70, rate=8000, format="FLAC")) == 413
    assert status(b"") == 415
    assert status(b"no sound") == 415


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("seeds")
    pictures = [saved(SMALL, name) for name in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF", "BMP")]
    sounds = [
        save_sound(folder / f"a{suffix}", tone("red", seconds=0.3)).read_bytes()
        for suffix in (".wav", ".flac", ".ogg")
    ]
    return [*pictures, *sounds]


@pytest.mark.parametrize("kind", ["image/png", "audio/wav"])
def test_no_bytes_make_the_server_fail(http: httpx.Client, seeds: list[bytes], kind: str) -> None:
    @given(st.integers(0, len(seeds) - 1), st.randoms(use_true_random=False), st.binary(max_size=64))
    @settings(
        max_examples=150,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(seed: int, chance: random.Random, more: bytes) -> None:
        data = bytearray(seeds[seed])
        for _ in range(chance.randint(1, 12)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        place = chance.randrange(len(data))
        data[place:place] = more
        response = sent(http, bytes(data), "x", kind)
        assert response.status_code in (200, 413, 415, 422), response.text

    ask()


def test_slow_work_on_media_keeps_no_search_waiting(home: Path) -> None:
    """Both media threads are held by a small copy that is being made; words are searched all the same."""
    with Engine.open(home, create=False) as engine:
        items = [item for item in engine.items() if item.modality == "image"][:3]
    entered, leave = threading.Semaphore(0), threading.Event()

    class Slow(Thumbnails):
        def get(self, *arguments: Any) -> Path:
            entered.release()
            leave.wait(20)
            return super().get(*arguments)

    with serving(home, Options(workers=1), thumbnails=Slow(home)) as url:
        statuses: list[int] = []

        def look(item: Any) -> None:
            path = f"{url}{ITEMS}/{item.id}/parts/{item.parts[0].id}/thumbnail"
            statuses.append(httpx.get(path, timeout=30).status_code)

        threads = [threading.Thread(target=look, args=(item,)) for item in items]
        for thread in threads:
            thread.start()
        assert entered.acquire(timeout=10)
        assert entered.acquire(timeout=10)
        assert httpx.post(url + SEARCH, json={"text": "red"}, timeout=10).status_code == 200
        leave.set()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 3
