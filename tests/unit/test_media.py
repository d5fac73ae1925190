"""Pictures of many programs come out right; whatever is wrong with a file is a MediaError that says so."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL.TiffImagePlugin import IFDRational

from mmsearch import media
from mmsearch.errors import MediaError
from mmsearch.media import image_attributes, load_image, modality_of, read_image
from mmsearch.types import Modality

FIXTURES = Path(__file__).parent.parent / "fixtures" / "media"
GREEN, BLUE = (40, 200, 40), (48, 40, 211)
COLOURED = [
    "progressive.jpg cmyk.jpg phone.jpg palette.png deep-rgb.png animated.gif animated.webp photo.webp",
    "deep-rgb.tif cmyk.tif palette.bmp true.bmp photo.ppm photo.heic photo.avif photo.jp2 photo.j2k",
]
FORMATS = {"jpg": "JPEG", "tif": "TIFF", "ppm": "PPM", "heic": "HEIF", "jp2": "JPEG2000", "j2k": "JPEG2000"}


def near(got: object, expected: tuple[int, int, int], tolerance: int = 8) -> bool:
    return isinstance(got, tuple) and all(abs(a - b) <= tolerance for a, b in zip(got, expected, strict=True))


def encoded(image: PIL.Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of 48 KB that claims width x height pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(48_000), 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", pixels)
        + png_chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("name", " ".join(COLOURED).split())
def test_a_picture_of_another_program_is_upright_rgb_with_the_right_colours(name: str) -> None:
    image = load_image(FIXTURES / name)
    assert (image.mode, image.size) == ("RGB", (96, 64))
    assert near(image.getpixel((6, 6)), GREEN)
    assert near(image.getpixel((90, 60)), BLUE)
    facts = image_attributes(FIXTURES / name)
    suffix = name.split(".")[1]
    assert (facts["width"], facts["height"]) == (96, 64)
    assert facts["format"] == FORMATS.get(suffix, suffix.upper())


@pytest.mark.parametrize(
    ("name", "top", "bottom"),
    [("grey.jpg", 154, 54), ("deep-grey.png", 155, 54), ("deep-grey.tif", 155, 54), ("photo.pgm", 134, 62)],
)
def test_grey_pictures_keep_their_levels_at_eight_and_at_sixteen_bits(
    name: str, top: int, bottom: int
) -> None:
    image = load_image(FIXTURES / name)
    assert near(image.getpixel((6, 6)), (top, top, top), 3)
    assert near(image.getpixel((90, 60)), (bottom, bottom, bottom), 3)


def test_black_and_white_and_plain_text_netpbm_files_are_read() -> None:
    assert {colour for _, colour in load_image(FIXTURES / "photo.pbm").getcolors() or []} == {
        (0, 0, 0),
        (255, 255, 255),
    }
    assert near(load_image(FIXTURES / "plain.ppm").getpixel((1, 1)), GREEN)


def test_transparency_is_laid_on_white() -> None:
    image = load_image(FIXTURES / "alpha.png")
    assert image.getpixel((6, 6)) == GREEN
    assert image.getpixel((90, 60)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_every_kind_of_transparency_is_laid_on_white(mode: str) -> None:
    image = PIL.Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
    options = {"transparency": b"\0" * 256} if mode == "P" else {}
    assert load_image(encoded(image, "PNG", **options)).getpixel((0, 0)) == (255, 255, 255)


def test_floats_are_spread_over_the_grey_levels_and_nan_is_black() -> None:
    values = np.array([[0.25, 0.5], [0.75, np.nan]], np.float32)
    image = load_image(encoded(PIL.Image.fromarray(values), "TIFF"))
    assert [image.getpixel(at) for at in ((0, 0), (1, 0), (0, 1), (1, 1))] == [
        (level, level, level) for level in (85, 170, 255, 0)
    ]


def test_exif_becomes_attributes() -> None:
    assert image_attributes(FIXTURES / "phone.jpg") == {
        "width": 96,
        "height": 64,
        "format": "JPEG",
        "taken": datetime(2024, 5, 17, 18, 3, 22),
        "camera": "NIKON D90",
        "lens": "18-105mm f/3.5-5.6",
        "iso": 400,
        "f_number": 5.6,
        "exposure_time": 0.004,
        "focal_length": 35.0,
        "lat": -33.8567833,
        "lon": 151.2152972,
        "rating": 4,
    }
    heic = image_attributes(FIXTURES / "photo.heic")
    assert (heic["camera"], heic["taken"]) == ("Apple iPhone 12", datetime(2023, 1, 2, 3, 4, 5))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright_and_its_size_told_so(orientation: int) -> None:
    upright = PIL.Image.open(FIXTURES / "true.bmp").convert("RGB")
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # members of Transpose that lay the picture so
    stored = upright if orientation == 1 else upright.transpose(PIL.Image.Transpose(undo[orientation]))
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    image, facts = read_image(encoded(stored, "PNG", exif=exif), "x.png")
    np.testing.assert_array_equal(np.asarray(image), np.asarray(upright))
    assert (facts["width"], facts["height"]) == (96, 64)


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (0x9003, "0000:00:00 00:00:00"),
        (0x9003, "last summer"),
        (0x829A, float("nan")),
        (0x829D, 0.0),
        (0x8827, 0),
        (0x010F, "\0\0"),
        (0x0112, 99),
    ],
)
def test_a_field_without_sense_is_left_out(tag: int, value: object) -> None:
    exif = PIL.Image.Exif()
    if tag in (0x010F, 0x0112):
        exif[tag] = value
    else:
        exif.get_ifd(0x8769)[tag] = value
    data = encoded(PIL.Image.new("RGB", (8, 8)), "JPEG", exif=exif)
    assert set(image_attributes(data)) == {"width", "height", "format"}


@pytest.mark.parametrize("latitude", [(95.0, 0.0, 0.0), (10.0, IFDRational(1, 0), 0.0), (0.0,) * 0])
def test_a_place_off_the_globe_is_left_out(latitude: tuple[float | IFDRational, ...]) -> None:
    exif = PIL.Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: latitude, 3: "E", 4: (10.0, 0.0, 0.0)})
    facts = image_attributes(encoded(PIL.Image.new("RGB", (8, 8)), "JPEG", exif=exif))
    assert not {"lat", "lon"} & set(facts)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 300))
def test_garbage_in_exif_never_raises_and_never_warns(garbage: bytes, at: int) -> None:
    data = (FIXTURES / "phone.jpg").read_bytes()
    start = data.index(b"Exif\0\0") + 6
    damaged = data[: start + at] + garbage + data[start + at + len(garbage) :]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            image, facts = read_image(damaged, "x.jpg")
        except MediaError:  # the garbage reached into the pixels
            return
    assert image.mode == "RGB"
    for value in facts.values():
        assert not isinstance(value, str) or value.encode()  # no lone surrogates, which no database takes


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(path.name for path in FIXTURES.iterdir())), st.data())
def test_a_flipped_byte_gives_a_picture_or_a_media_error(name: str, data: st.DataObject) -> None:
    content = bytearray((FIXTURES / name).read_bytes())
    content[data.draw(st.integers(0, min(len(content), 1500) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        image, _ = read_image(bytes(content), name)
    except MediaError:
        return
    assert image.mode == "RGB"


@pytest.mark.parametrize(
    "name", ["progressive.jpg", "photo.heic", "photo.avif", "photo.webp", "deep-rgb.png", "true.bmp"]
)
def test_a_file_that_ends_early_is_a_media_error_naming_it(name: str) -> None:
    content = (FIXTURES / name).read_bytes()
    with pytest.raises(MediaError, match="short"):
        read_image(content[: len(content) * 2 // 3], "short")


def test_a_truncated_jpeg_is_called_cut_short() -> None:
    content = (FIXTURES / "cmyk.jpg").read_bytes()
    with pytest.raises(MediaError, match="cut short"):
        read_image(content[:700], "x.jpg")


def test_a_bomb_is_refused_by_its_claim_before_any_pixel_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_decoding(image: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", no_decoding)
    bomb = png_bomb(20_000, 20_000)
    assert len(bomb) < 60_000
    with pytest.raises(MediaError, match="claims 400 megapixels"):
        read_image(bomb, "bomb.png")


@pytest.mark.parametrize(
    "name", ["photo.jp2", "photo.heic", "photo.pgm", "true.bmp", "animated.gif", "cmyk.tif"]
)
def test_a_bomb_of_every_format_is_refused_by_its_header(name: str) -> None:
    content = (FIXTURES / name).read_bytes()
    width, height = {
        "photo.jp2": (struct.pack(">I", 96), struct.pack(">I", 64)),
        "photo.heic": (struct.pack(">I", 96), struct.pack(">I", 64)),
        "photo.pgm": (b"96", b"64"),
        "true.bmp": (struct.pack("<I", 96), struct.pack("<I", 64)),
        "animated.gif": (struct.pack("<H", 96), struct.pack("<H", 64)),
        "cmyk.tif": (struct.pack("<HII", 3, 1, 96), struct.pack("<HII", 3, 1, 64)),
    }[name]
    huge = {4: b"\0\0\xc0\0", 2: b"\xff\xff", 10: struct.pack("<HII", 4, 1, 60_000)}.get(len(width), b"")
    if name == "photo.pgm":
        huge = b"60000"
    elif name == "true.bmp":
        huge = struct.pack("<I", 60_000)
    with pytest.raises(MediaError, match=r"claims|damaged"):
        read_image(content.replace(width, huge).replace(height, huge), name)


def test_a_picture_just_within_the_limit_is_no_bomb_and_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow warns from 89 megapixels on
        facts = image_attributes(png_bomb(10_000, 10_000))
    assert facts["width"] == 10_000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"Dear diary, this is no picture.", "is not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is not a picture"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"\xff\xd8\xff", "damaged"),
    ],
)
def test_what_is_no_picture_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(MediaError, match=reason) as caught:
        load_image(content, name="photo.jpg")
    assert caught.value.path == "photo.jpg"


def test_paths_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    empty, pipe = tmp_path / "empty.jpg", tmp_path / "pipe.jpg"
    empty.touch()
    os.mkfifo(pipe)
    for path, reason in [
        (tmp_path / "missing.jpg", "no such file"),
        (tmp_path, "is a folder"),
        (empty, "zero bytes"),
        (pipe, "is not a regular file"),
        (Path("nul\0.jpg"), "cannot be read"),
        (tmp_path / ("x" * 300), "cannot be read"),
    ]:
        with pytest.raises(MediaError, match=reason):
            load_image(path)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    with path.open("wb") as file:
        file.truncate(media.MAX_FILE_BYTES + 1)
    with pytest.raises(MediaError, match="at most 1024"):
        load_image(path)


def test_a_jpeg_is_decoded_smaller_but_never_below_the_wanted_side() -> None:
    data = encoded(PIL.Image.new("RGB", (1600, 1200), "red"), "JPEG")
    for wanted in (1, 149, 150, 260, 300, 301, 5000):
        image, facts = read_image(data, "x.jpg", wanted)
        assert min(image.size) >= min(wanted, 1200)
        assert (facts["width"], facts["height"]) == (1600, 1200)
    assert read_image(data, "x.jpg", 260)[0].size == (400, 300)


def test_pictures_are_decoded_on_many_threads_at_once() -> None:
    contents = [(path.name, path.read_bytes()) for path in sorted(FIXTURES.iterdir())] * 3
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda pair: read_image(pair[1], pair[0])[0], contents))
    assert all(image.mode == "RGB" for image in images)


def test_a_file_is_known_by_its_suffix_in_any_case() -> None:
    assert modality_of("a/B.JPG") == modality_of(Path("x.heic")) == Modality.IMAGE
    assert modality_of("notes.Md") == modality_of("x.PDF") == Modality.TEXT
    assert modality_of("archive.zip") is None
    assert modality_of("jpg") is None


Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Serve one answer to every request; gives its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = False
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up are expected
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/photo"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def respond(status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    return answer


def test_a_picture_is_fetched_by_its_address(serve: Callable[[Answer], str]) -> None:
    url = serve(respond(200, (FIXTURES / "photo.webp").read_bytes()))
    assert load_image(url).size == (96, 64)


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (404, {}, "404"),
        (500, {}, "500"),
        (200, {}, "zero bytes"),
        (302, {"Location": "file:///etc/passwd"}, "cannot be fetched"),
    ],
)
def test_a_failed_answer_is_a_media_error_with_the_address(
    serve: Callable[[Answer], str], status: int, headers: dict[str, str], reason: str
) -> None:
    url = serve(respond(status, headers=headers))
    with pytest.raises(MediaError, match=reason) as caught:
        load_image(url)
    assert caught.value.path == url


def test_a_slow_answer_and_an_endless_one_are_given_up(
    serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()

    def silent(request: BaseHTTPRequestHandler) -> None:
        stop.wait(5)

    def trickle(request: BaseHTTPRequestHandler) -> None:
        respond(200)(request)
        while not stop.wait(0.02):
            request.wfile.write(b"x")

    monkeypatch.setattr(media, "DOWNLOAD_SECONDS", 0.2)
    for answer in (silent, trickle):
        with pytest.raises(MediaError, match=r"within 0\.2 seconds"):
            load_image(serve(answer))
    stop.set()
    monkeypatch.setattr(media, "MAX_DOWNLOAD_BYTES", 1 << 20)
    with pytest.raises(MediaError, match="larger than 1 MiB"):
        load_image(serve(respond(200, bytes(1 << 21))))


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x.jpg", "data://text/plain,x", "http://", "http://[x"]
)
def test_only_http_and_https_addresses_are_fetched(url: str) -> None:
    with pytest.raises(MediaError):
        load_image(url)


def test_nobody_listening_is_a_media_error() -> None:
    with pytest.raises(MediaError, match="cannot be fetched"):
        load_image("http://127.0.0.1:9/photo.jpg")
