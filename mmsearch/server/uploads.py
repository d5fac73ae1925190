"""Pictures and recordings in requests: base64 in the JSON, or files of a multipart form; none larger than allowed."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from mmsearch.decoding import decoding
from mmsearch.encoders import Encoder
from mmsearch.errors import MediaError
from mmsearch.media import image_attributes, load_image, pixels_of, sound_is_longer
from mmsearch.server.options import Options
from mmsearch.server.problems import Problem
from mmsearch.server.schemas import Blob
from mmsearch.types import Modality

__all__ = ["Uploads"]


class Uploads:
    """The files of one request, by name, and how they become what a query takes. ``encoder`` says what it takes of a
    picture, so that no large one is kept.
    """

    def __init__(
        self, options: Options, files: Mapping[str, bytes] | None = None, encoder: Encoder | None = None
    ) -> None:
        self._options = options
        self._files = dict(files or {})
        self._encoder = encoder
        self._pixels = 0

    def __call__(self, blob: Blob, modality: Modality) -> Any:
        """A picture, or the bytes of a recording. Raises ``Problem`` 413 and 422, ``MediaError``."""
        name, data = self._bytes(blob)
        if modality is Modality.IMAGE:
            assert self._encoder is not None
            self._pixels += self.check_picture(data, name)
            if self._pixels > (most := self._options.max_pictures_pixels):
                raise Problem(413, f"the pictures have more than {most} pixels together; send fewer at once")
            side = self._encoder.image_size
            with decoding(pixels_of(data, name, side)):
                image = load_image(data, min_side=side, name=name)
                return self._encoder.prepare_image(image)
        self.check_sound(data, name, self._options.max_seconds_of_sound)
        return data

    def data(self, blob: Blob) -> bytes:
        """The bytes of an upload. Raises ``Problem`` 422, ``MediaError``."""
        return self._bytes(blob)[1]

    def check_picture(self, data: bytes, name: str) -> int:
        """How many pixels a picture has. Raises ``MediaError`` if it is none, ``Problem`` 413 if they are too many."""
        facts = image_attributes(data, name=name)
        pixels = int(facts["width"]) * int(facts["height"])  # type: ignore[arg-type]
        if pixels > self._options.max_pixels:
            raise Problem(413, f"{name}: has {pixels} pixels; at most {self._options.max_pixels} are read")
        return pixels

    def _bytes(self, blob: Blob) -> tuple[str, bytes]:
        if blob.upload is not None:
            if blob.upload not in self._files:
                have = ", ".join(sorted(self._files)) or "none"
                raise Problem(422, f"no file {blob.upload!r} in this request; there are: {have}")
            return blob.upload, self._files[blob.upload]
        assert blob.base64 is not None
        text = blob.base64.partition(",")[2] if blob.base64.startswith("data:") else blob.base64
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise Problem(422, "base64: this is not base64") from None
        if not data:
            raise MediaError("upload", "is empty (zero bytes)")
        return "upload", data

    def check_sound(self, data: bytes, name: str, seconds: float) -> None:
        """Raises ``MediaError`` if there is no sound, ``Problem`` 413 if it lasts longer, or claims to."""
        if not data:
            raise MediaError(name, "is empty (zero bytes)")
        if sound_is_longer(data, seconds, name):
            raise Problem(413, f"{name}: is too long; at most {seconds:g} s of sound are heard")
