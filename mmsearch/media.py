"""Files, bytes and URLs become pictures, texts and sounds here, and every guard against bad input stands here.

Whatever a user can do wrong with a file (missing, a folder, empty, not a picture, cut short, a bomb) is a
``MediaError`` that names the file and says why. Texts are cut into parts by ``mmsearch.documents``, recordings by
``mmsearch.sound``.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import stat
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmsearch import exif
from mmsearch.documents import Document, TextPart, read_text
from mmsearch.errors import MediaError
from mmsearch.sound import SOUND_SUFFIXES, TRACK_SUFFIXES, Sound, is_longer, read_sound
from mmsearch.types import AttributeValue, AudioWindow, Image, Modality, Waveform

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "SOUND_SUFFIXES",
    "TEXT_SUFFIXES",
    "TRACK_SUFFIXES",
    "Document",
    "Sound",
    "TextPart",
    "fetch",
    "image_attributes",
    "load_image",
    "load_sound",
    "modality_of",
    "opened",
    "pixels_of",
    "read_file",
    "read_image",
    "read_sound",
    "read_text",
    "sound_is_longer",
]

_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_OTHER_SUFFIXES = (".heic", ".heif", ".hif", ".avif", ".jp2", ".j2k", ".jpx", ".pnm", ".ppm", ".pgm", ".pbm")

IMAGE_SUFFIXES = frozenset(_PHOTO_SUFFIXES + _OTHER_SUFFIXES)
"""Lower-case suffixes of picture files."""

TEXT_SUFFIXES = frozenset((".txt", ".text", ".md", ".markdown", ".html", ".htm", ".xhtml", ".pdf"))
"""Lower-case suffixes of text files."""

MAX_PIXELS = 178_000_000
"""A picture that claims more is refused before any pixel is decoded; just below where Pillow raises."""

MAX_FILE_BYTES = 1 << 30
"""A larger file is refused before it is read."""

MAX_DOWNLOAD_BYTES = 64 << 20
DOWNLOAD_SECONDS = 10.0

# Only these are tried: Pillow knows more, and runs Ghostscript for one of them.
_FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "TIFF",
    "BMP",
    "AVIF",
    "JPEG2000",
    "PPM",
    "HEIF",
)
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


def modality_of(path: str | Path) -> Modality | None:
    """What a file is by its suffix; None if mmsearch does not read such files."""
    suffix = os.path.splitext(path)[
        1
    ].lower()  # asked of every file on a disk: pathlib takes five times as long
    if suffix in IMAGE_SUFFIXES:
        return Modality.IMAGE
    if suffix in SOUND_SUFFIXES or suffix in TRACK_SUFFIXES:
        return Modality.AUDIO
    return Modality.TEXT if suffix in TEXT_SUFFIXES else None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """A regular file to read bytes from. What is wrong with it, or turns out while it is read, is a ``MediaError``."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise MediaError(path, "is a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise MediaError(path, "is not a regular file")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise MediaError(path, "no such file") from None
    except PermissionError:
        raise MediaError(path, "may not be read (permission denied)") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise MediaError(path, f"cannot be read ({error})") from None


def read_file(path: Path) -> bytes:
    """The bytes of a regular file, at most ``MAX_FILE_BYTES``. Raises ``MediaError``."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise MediaError(path, f"has {size >> 20} MiB; at most {MAX_FILE_BYTES >> 20} are read")
        data = file.read()
    if not data:
        raise MediaError(path, "is empty (zero bytes)")
    return data


def load_image(
    source: Path | str | bytes,
    *,
    min_side: int | None = None,
    name: object = None,
    max_pixels: int = MAX_PIXELS,
) -> Image:
    """The picture in a file, in bytes or behind an http(s) URL, as RGB with its EXIF orientation applied.

    ``min_side`` lets JPEG and HEIC decode at a reduced scale while the shorter side keeps that many pixels.
    Transparency is laid on white; of an animation the first frame is taken. ``name`` is what errors call it. A picture
    that claims more than ``max_pixels`` is refused.

    Raises ``MediaError``.
    """
    data, label = _bytes_of(source, name)
    return read_image(data, label, min_side, max_pixels)[0]


def image_attributes(source: Path | str | bytes, *, name: object = None) -> dict[str, AttributeValue]:
    """Facts about a picture, without decoding its pixels.

    ``width``, ``height`` (pixels, upright), ``format``, and what EXIF tells (``mmsearch.exif.attributes``).
    Damaged EXIF is left out, never an error.

    Raises ``MediaError`` if it is no picture.
    """
    data, label = _bytes_of(source, name)
    image = _open(data, label)
    return _facts(image, exif.read(image))


def pixels_of(data: bytes, name: object, min_side: int | None = None, max_pixels: int = MAX_PIXELS) -> int:
    """How many pixels ``read_image`` decodes of a picture, by its header; of a progressive JPEG it needs all.

    Raises ``MediaError`` if it is none, or claims too many.
    """
    image = _open(data, name, max_pixels)
    if min_side and not image.info.get("progressive"):
        image.draft("RGB", (min_side, min_side))
    width, height = image.size
    return width * height


def read_image(
    data: bytes, name: object, min_side: int | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[Image, dict[str, AttributeValue]]:
    """``load_image`` and ``image_attributes`` in one pass over the bytes. Raises ``MediaError``."""
    image = _open(data, name, max_pixels)
    tags = exif.read(image)
    facts = _facts(image, tags)  # before draft() changes the size
    try:
        if min_side:
            image.draft("RGB", (min_side, min_side))
        image.load()
        return exif.upright(_rgb(image), tags), facts
    except MemoryError:
        raise MediaError(name, "needs more memory than there is") from None
    except Exception as error:  # decoders of foreign bytes raise anything, from SyntaxError to struct.error
        reason = "is cut short" if "truncated" in str(error).lower() else f"is damaged ({error})"
        raise MediaError(name, f"the picture {reason}") from error


def load_sound(
    source: Path | str | bytes,
    window: AudioWindow,
    *,
    name: object = None,
    span: tuple[float, float] | None = None,
) -> Iterator[Waveform]:
    """The parts of a recording in a file, in bytes or behind an http(s) URL, silence left out; at least one. They are
    decoded as they are asked for.

    ``span`` (seconds) limits it to a stretch. Raises as ``read_sound`` does.
    """
    label = name if name is not None else "sound" if isinstance(source, bytes) else source
    if isinstance(source, bytes) or (isinstance(source, str) and "://" in source):
        import tempfile

        # By name, because what decodes in C reads a file faster than through Python, and some formats look around.
        with tempfile.TemporaryDirectory(prefix="mmsearch-") as folder:
            path = Path(folder, "sound")
            path.write_bytes(source if isinstance(source, bytes) else fetch(source))
            yield from read_sound(path, window, name=label, span=span).clips()
        return
    with opened(Path(source)):
        pass
    yield from read_sound(Path(source), window, name=label, span=span).clips()


def sound_is_longer(data: bytes, seconds: float, name: object) -> bool:
    """Whether the bytes of a recording hold more sound than that, or more samples than so many seconds of two channels
    at 48 kHz, whatever its header claims. Decodes no more than that. Raises as ``read_sound`` does.
    """
    import tempfile

    with tempfile.TemporaryDirectory(prefix="mmsearch-") as folder:
        path = Path(folder, "sound")
        path.write_bytes(data)
        return is_longer(path, seconds, name)


def fetch(url: str) -> bytes:
    """Download ``url`` (http or https): at most 64 MiB, within 10 seconds. Raises ``MediaError``."""
    import http.client
    import urllib.request as web
    from urllib.error import HTTPError

    # Named handlers instead of build_opener: a redirect must not reach file: or ftp: addresses.
    opener = web.OpenerDirector()
    for handler in (
        web.ProxyHandler,
        web.HTTPHandler,
        web.HTTPSHandler,
        web.HTTPRedirectHandler,
        web.HTTPErrorProcessor,
        web.HTTPDefaultErrorHandler,
        web.UnknownHandler,
    ):
        opener.add_handler(handler())
    if not _is_url(url):
        raise MediaError(url, "only http and https addresses are fetched")
    chunks: list[bytes] = []
    received = 0
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    try:
        with opener.open(
            web.Request(url, headers={"User-Agent": "mmsearch"}),
            timeout=DOWNLOAD_SECONDS,
        ) as response:
            while chunk := response.read1(1 << 16):
                chunks.append(chunk)
                received += len(chunk)
                if received > MAX_DOWNLOAD_BYTES:
                    raise MediaError(url, f"is larger than {MAX_DOWNLOAD_BYTES >> 20} MiB")
                if time.monotonic() > deadline:
                    raise TimeoutError
    except TimeoutError:
        raise MediaError(url, f"did not arrive within {DOWNLOAD_SECONDS:g} seconds") from None
    except HTTPError as error:
        error.close()  # it is the response too, and holds the connection
        raise MediaError(url, f"cannot be fetched ({error})") from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is an OSError
        if isinstance(getattr(error, "reason", None), TimeoutError):
            raise MediaError(url, f"did not answer within {DOWNLOAD_SECONDS:g} seconds") from None
        raise MediaError(url, f"cannot be fetched ({error})") from None
    if not chunks:
        raise MediaError(url, "is empty (zero bytes)")
    return b"".join(chunks)


def _is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _bytes_of(source: Path | str | bytes, name: object) -> tuple[bytes, object]:
    if isinstance(source, bytes):
        return source, "picture" if name is None else name
    label = source if name is None else name
    if isinstance(source, str) and "://" in source:
        return fetch(source), label
    return read_file(Path(source)), label


@functools.cache
def _decoders() -> Mapping[str, tuple[Callable[..., ImageFile], Callable[[bytes], bool | str] | None]]:
    """Format -> (opener, test of the first bytes), from Pillow's own table."""
    import PIL.Image
    from PIL import (  # noqa: F401  each enters itself in the table when it is imported
        AvifImagePlugin,
        BmpImagePlugin,
        GifImagePlugin,
        Jpeg2KImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        PpmImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    def open_heif(file: io.BytesIO, filename: str) -> ImageFile:
        from pillow_heif import HeifImageFile

        opened: ImageFile = HeifImageFile(file, filename)  # type: ignore[no-untyped-call]
        return opened

    def is_heif(prefix: bytes) -> bool:
        return prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS

    return {**PIL.Image.OPEN, "HEIF": (open_heif, is_heif)}


def _open(data: bytes, name: object, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """The opened picture, its header read and its size checked, no pixel decoded.

    This is ``PIL.Image.open`` without its size check, which warns at half of our limit.
    """
    if not data:
        raise MediaError(name, "is empty (zero bytes)")
    # Odd metadata is no news to a user. Not catch_warnings: it is not safe between threads.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    prefix, decoders = data[:16], _decoders()
    reason = "is not a picture that can be read (JPEG PNG WebP GIF BMP TIFF HEIC AVIF JPEG-2000 PNM)"
    for format in _FORMATS:
        opener, accepts = decoders[format]
        if accepts is not None and accepts(prefix) is not True:
            continue
        try:
            image = opener(io.BytesIO(data), "")
        except (
            Exception
        ) as error:  # parsers of foreign bytes raise anything; another format may still accept them
            reason = f"the header of the {format} picture is damaged ({error})"
            continue
        width, height = image.size
        if width * height > max_pixels:
            image.close()
            claim, limit = width * height // 1_000_000, max_pixels // 1_000_000
            raise MediaError(
                name,
                f"claims {claim} megapixels; more than {limit} are refused as a bomb",
            )
        return image
    raise MediaError(name, reason)


def _facts(image: ImageFile, tags: exif.Tags) -> dict[str, AttributeValue]:
    width, height = exif.upright_size(image.size, tags)
    format = "JPEG" if image.format == "MPO" else image.format or ""
    return {"width": width, "height": height, "format": format, **exif.attributes(tags)}


def _rgb(image: Image) -> Image:
    """Any decoded picture as 8-bit RGB: deep grey scaled down, transparency laid on white."""
    import PIL.Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode[0] in "IF":  # convert() would cut off everything above 255
        return PIL.Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        picture = PIL.Image.new("RGB", image.size, "white")
        picture.paste(layer, mask=layer.getchannel("A"))
        return picture
    return image.convert("RGB")


def _eight_bits(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """(h, w) grey levels of 16 bits, or floats of any range, as uint8."""
    if grey.dtype.kind == "f":
        grey = np.nan_to_num(grey.astype(np.float64), posinf=0, neginf=0)
        low, high = float(grey.min()), float(grey.max())
        grey = (grey - low) * (65535 / (high - low) if high > low else 0)
    return np.asarray(np.clip(grey, 0, 65535) // 256, np.uint8)
