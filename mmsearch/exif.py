"""EXIF: what a camera wrote beside the pixels. Damaged fields are left out; nothing here raises for them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from mmsearch.types import AttributeValue, Image

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = ["Tags", "attributes", "read", "upright", "upright_size", "words"]

Tags: TypeAlias = Mapping[int, Any]
"""Number of a tag -> its value; the GPS tags in a table of their own under 0x8825."""

# Numbers of the tags from "Exif 2.32" (CIPA DC-008-2019); the rating is Microsoft's.
_ORIENTATION, _MAKE, _MODEL, _DATE, _RATING = 0x0112, 0x010F, 0x0110, 0x0132, 0x4746
_EXPOSURE_TIME, _F_NUMBER, _ISO, _FOCAL_LENGTH, _LENS = (
    0x829A,
    0x829D,
    0x8827,
    0x920A,
    0xA434,
)
_DATE_TAKEN, _DATE_DIGITISED = 0x9003, 0x9004
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_GPS_LAT_REF, _GPS_LAT, _GPS_LON_REF, _GPS_LON = 1, 2, 3, 4

# Orientation -> member of PIL.Image.Transpose
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def read(image: ImageFile) -> Tags:
    """All EXIF tags of an opened picture in one table; empty where there are none or they are damaged."""
    try:
        exif = image.getexif()
        gps = dict(exif.get_ifd(_GPS_IFD))
        return {**exif, **exif.get_ifd(_EXIF_IFD), _GPS_IFD: gps}
    except Exception:  # a parser of foreign bytes raises anything; the pixels do not need it
        return {}


def upright(image: Image, tags: Tags) -> Image:
    """The picture turned and mirrored as its orientation tag says."""
    from PIL.Image import Transpose

    orientation = _orientation(tags)
    return image.transpose(Transpose[_UPRIGHT[orientation]]) if orientation in _UPRIGHT else image


def upright_size(size: tuple[int, int], tags: Tags) -> tuple[int, int]:
    """(width, height) after ``upright``."""
    return (size[1], size[0]) if _orientation(tags) >= 5 else size


def attributes(tags: Tags) -> dict[str, AttributeValue]:
    """What the tags tell, each only where it makes sense: ``taken`` (local time), ``camera``, ``lens``,
    ``iso``, ``f_number``, ``exposure_time`` (seconds), ``focal_length`` (mm), ``lat`` and ``lon`` (signed degrees),
    ``rating`` (0 to 5).
    """
    gps = tags.get(_GPS_IFD, {})
    latitude = _degrees(gps.get(_GPS_LAT), gps.get(_GPS_LAT_REF), "S", 90)
    longitude = _degrees(gps.get(_GPS_LON), gps.get(_GPS_LON_REF), "W", 180)
    located = latitude is not None and longitude is not None
    iso, rating = _number(tags.get(_ISO)), _number(tags.get(_RATING))
    facts: dict[str, AttributeValue | None] = {
        "taken": _date(tags.get(_DATE_TAKEN)) or _date(tags.get(_DATE_DIGITISED)) or _date(tags.get(_DATE)),
        "camera": _camera(words(tags.get(_MAKE)), words(tags.get(_MODEL))),
        "lens": words(tags.get(_LENS)),
        "iso": int(iso) if iso and iso > 0 else None,
        "f_number": _positive(tags.get(_F_NUMBER)),
        "exposure_time": _positive(tags.get(_EXPOSURE_TIME)),
        "focal_length": _positive(tags.get(_FOCAL_LENGTH)),
        "lat": latitude if located else None,
        "lon": longitude if located else None,
        "rating": int(rating) if rating is not None and 0 <= rating <= 5 else None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _orientation(tags: Tags) -> int:
    value = tags.get(_ORIENTATION)
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _number(value: object) -> float | None:
    """A finite number from an EXIF field (integer, rational, or a list of them); None for anything else."""
    if isinstance(value, tuple | list):
        value = value[0] if value else None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if math.isfinite(number) and abs(number) < 2**53 else None


def _positive(value: object) -> float | None:
    number = _number(value)
    return round(number, 6) if number and number > 0 else None


def words(value: object) -> str | None:
    """Printable text of a field of metadata: up to its first NUL, blanks tidied, no control characters."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    printable = "".join(c if c.isprintable() else " " for c in value.split("\0")[0])
    return " ".join(printable.split())[:200] or None


def _camera(make: str | None, model: str | None) -> str | None:
    """One name: Canon + Canon EOS 5D is a Canon EOS 5D, NIKON CORPORATION + NIKON D90 a NIKON D90."""
    if not make or not model:
        return model or make
    return model if model.lower().startswith(make.split()[0].lower()) else f"{make} {model}"


def _date(value: object) -> datetime | None:
    text = words(value)
    fields = re.match(r"(\d{4})\D(\d\d)\D(\d\d)\D(\d\d)\D(\d\d)\D(\d\d)", text or "", re.ASCII)
    try:
        return datetime(*map(int, fields.groups())) if fields else None  # type: ignore[arg-type]
    except ValueError:  # "0000:00:00 00:00:00" of a camera whose clock was never set
        return None


def _degrees(value: object, reference: object, negative: str, limit: float) -> float | None:
    """Signed decimal degrees from (degrees, minutes, seconds) and N, S, E or W."""
    if not isinstance(value, tuple | list) or not value:
        return None
    parts = [_number(part) for part in value[:3]]
    degrees = sum(part / 60**power if part is not None else math.nan for power, part in enumerate(parts))
    if not 0 <= degrees <= limit:  # also false for nan
        return None
    south_or_west = (words(reference) or "").upper().startswith(negative)
    return round(-degrees if south_or_west else degrees, 7)
