"""What a picture goes through before an image tower: brought to its size, and its pixels to the numbers it expects."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmsearch.types import Image

__all__ = ["Colour", "Interpolation", "Layout", "Preprocess", "Resize"]

Resize = Literal["squash", "crop", "pad"]
Interpolation = Literal["bicubic", "bilinear"]
Layout = Literal["NHWC", "NCHW"]
Colour = tuple[float, float, float]


_LONGEST = 8  # times as long as it is broad: of a longer strip the ends are cut off first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image tower wants its pictures. ``size`` is (width, height); ``mean`` and ``std`` are on the scale 0..255.

    ``resize``: squash ignores the proportions, crop brings the shorter side to size and cuts the middle out, pad
    brings the longer side to size and fills up with ``pad_color``: to the pixel what open_clip does with ``squash``,
    ``shortest`` and ``longest``. ``mean`` is None when the tower takes the uint8 pixels as they are.
    """

    size: tuple[int, int]
    resize: Resize
    interpolation: Interpolation
    pad_color: tuple[int, int, int] = (0, 0, 0)
    layout: Layout
    mean: Colour | None
    std: Colour | None

    def prepare(self, image: Image) -> Image:
        """The picture at the tower's size as RGB; a picture that is so already is returned as it is."""
        import PIL.Image

        if image.size == self.size:
            return _rgb(image)
        # With one side longer than the other open_clip forgets the interpolation that was asked for.
        forgotten = self.resize == "crop" and self.size[0] != self.size[1]
        method = PIL.Image.Resampling["BICUBIC" if forgotten else self.interpolation.upper()]
        width, height = self._scaled(image.size)
        if self.resize == "crop" and max(width, height) > _LONGEST * max(self.size):
            image = _middle(
                image, _LONGEST
            )  # a strip of one by 16,000 pixels would be gigabytes at this size
            width, height = self._scaled(image.size)
        resized = _rgb(
            image.resize((width, height), method)
        )  # colours last, as open_clip does: alpha has its say
        if resized.size == self.size:
            return resized
        # As torchvision and open_clip round: an odd pixel is cut off at one side and filled up at the other.
        left, top = round((width - self.size[0]) / 2), round((height - self.size[1]) / 2)
        if self.resize == "crop":
            return resized.crop((left, top, left + self.size[0], top + self.size[1]))
        canvas = PIL.Image.new("RGB", self.size, self.pad_color)
        canvas.paste(resized, ((self.size[0] - width) // 2, (self.size[1] - height) // 2))
        return canvas

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        """What a picture of this size is resized to before it is cut or filled up."""
        (width, height), (wanted_width, wanted_height) = size, self.size
        if self.resize == "squash":
            return self.size
        if self.resize == "crop" and wanted_width == wanted_height:  # torchvision cuts fractions off here
            if width <= height:
                return wanted_width, int(wanted_width * height / width)
            return int(wanted_width * width / height), wanted_width
        ratios = (width / wanted_width, height / wanted_height)
        ratio = min(ratios) if self.resize == "crop" else max(ratios)
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def pixels(self, images: Sequence[Image]) -> NDArray[np.uint8] | NDArray[np.float32]:
        """(n, height, width, 3) uint8, or normalised float32, or with the channels first, as the tower wants it."""
        stack = np.stack([np.asarray(self.prepare(image)) for image in images])
        if self.layout == "NCHW":
            stack = np.ascontiguousarray(stack.transpose(0, 3, 1, 2))
        if self.mean is None or self.std is None:
            return stack
        shape = (3, 1, 1) if self.layout == "NCHW" else (3,)
        pixels = stack.astype(np.float32)
        pixels -= np.array(self.mean, np.float32).reshape(shape)
        pixels *= (1 / np.array(self.std, np.float32)).reshape(shape)
        return pixels


def _rgb(image: Image) -> Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _middle(image: Image, times: int) -> Image:
    """The middle of a strip, so many times as long as it is broad."""
    width, height = image.size
    kept = times * min(width, height)
    left, top = max(0, (width - kept) // 2), max(0, (height - kept) // 2)
    return image.crop((left, top, width - left, height - top))
