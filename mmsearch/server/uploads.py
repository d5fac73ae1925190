"""Pictures and recordings in requests: base64 in the JSON, or files of a multipart form; none larger than allowed."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from typing import Any

from mmsearch.errors import MediaError
from mmsearch.media import image_attributes, load_image
from mmsearch.server.options import Options
from mmsearch.server.problems import Problem
from mmsearch.server.schemas import Blob
from mmsearch.types import Modality

__all__ = ["Uploads"]


class Uploads:
    """The files of one request, by name, and how they become what a query takes."""

    def __init__(
        self, options: Options, files: Mapping[str, bytes] | None = None, image_size: int = 224
    ) -> None:
        self._options = options
        self._files = dict(files or {})
        self._image_size = image_size

    def __call__(self, blob: Blob, modality: Modality) -> Any:
        """A picture, or the bytes of a recording. Raises ``Problem`` 413 and 422, ``MediaError``."""
        name, data = self._bytes(blob)
        if modality is Modality.IMAGE:
            self.check_picture(data, name)
            return load_image(data, min_side=self._image_size, name=name)
        self.check_sound(data, name)
        return data

    def data(self, blob: Blob) -> bytes:
        """The bytes of an upload. Raises ``Problem`` 422, ``MediaError``."""
        return self._bytes(blob)[1]

    def check_picture(self, data: bytes, name: str) -> None:
        """Raises ``MediaError`` if it is no picture, ``Problem`` 413 if it has too many pixels."""
        facts = image_attributes(data, name=name)
        pixels = int(facts["width"]) * int(facts["height"])  # type: ignore[arg-type]
        if pixels > self._options.max_pixels:
            raise Problem(413, f"{name}: has {pixels} pixels; at most {self._options.max_pixels} are read")

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

    def check_sound(self, data: bytes, name: str) -> None:
        """Raises ``MediaError`` if there is nothing, ``Problem`` 413 if it is too long."""
        import soundfile

        if not data:
            raise MediaError(name, "is empty (zero bytes)")
        try:
            seconds = float(soundfile.info(io.BytesIO(data)).duration)
        except Exception:
            return  # the decoder says better what is wrong, or reads more formats than this
        if seconds > self._options.max_seconds_of_sound:
            raise Problem(
                413,
                f"{name}: {seconds:.0f} s of sound; at most {self._options.max_seconds_of_sound:g} are heard",
            )
