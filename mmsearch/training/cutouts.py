"""Pictures whose colour is known: pieces of photos, tinted and put on the light ground of a shop's pictures.

Captions of photos name colours, but rarely of the one thing that the picture shows. A head that has seen these
learns colour words as such, without any product: it finds "a red dress" because it knows dresses and red.
"""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ImageDraw

from mmsearch.training.pairs import Pair

Colour = tuple[int, int, int]

SHADES: dict[str, tuple[Colour, ...]] = {
    "black": ((25, 25, 28), (40, 38, 40)),
    "white": ((248, 248, 246), (238, 238, 240)),
    "grey": ((128, 128, 130), (160, 160, 165), (95, 95, 100)),
    "red": ((200, 25, 30), (225, 40, 45), (170, 20, 30)),
    "green": ((40, 130, 60), (70, 160, 60), (30, 95, 60)),
    "blue": ((40, 80, 190), (70, 130, 210), (30, 100, 160)),
    "navy blue": ((25, 30, 70), (35, 45, 90)),
    "yellow": ((240, 210, 50), (235, 225, 90)),
    "orange": ((240, 130, 30), (225, 105, 40)),
    "pink": ((240, 140, 170), (235, 90, 150), (245, 180, 195)),
    "purple": ((115, 50, 140), (150, 90, 180), (90, 60, 120)),
    "brown": ((110, 70, 40), (85, 55, 35), (140, 95, 60)),
    "beige": ((220, 200, 165), (210, 190, 160)),
    "maroon": ((110, 20, 35), (90, 25, 40)),
    "olive": ((110, 115, 60), (95, 95, 55)),
    "silver": ((190, 192, 198),),
    "gold": ((205, 165, 80),),
    "cream": ((245, 235, 210),),
    "turquoise": ((60, 180, 180),),
    "khaki": ((180, 165, 120),),
    "tan": ((190, 145, 100),),
}
"""What a colour word stands for, sRGB."""

THINGS = ("thing", "object", "item", "clothes", "product")
GROUNDS: tuple[Colour, ...] = (
    (255, 255, 255),
    (255, 255, 255),
    (255, 255, 255),
    (245, 245, 245),
    (230, 225, 220),
)
SHAPES = ((150, 200), (200, 200), (180, 200))
WITHIN = 0.45  # of the sides of a photo: a piece


def cutouts(photos: Sequence[Path], folder: Path) -> list[Pair]:
    """One tinted piece of each photo as a PNG file in `folder`, with its colour as texts; the same at every call."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number, photo in enumerate(photos):
        draw = random.Random(f"cutout {number}")
        name = draw.choice(list(SHADES))
        target = folder / f"{number}.png"
        _cutout(photo, draw.choice(SHADES[name]), draw).save(target)
        found.append(Pair(target, (name, f"something {name}", f"{name} {draw.choice(THINGS)}")))
    return found


def _cutout(photo: Path, shade: Colour, draw: random.Random) -> PIL.Image.Image:
    width, height = draw.choice(SHAPES)
    across, down = int(width * draw.uniform(0.35, 0.9)), int(height * draw.uniform(0.35, 0.95))
    with PIL.Image.open(photo) as picture:
        picture.draft("RGB", (256, 256))
        grey = picture.convert("L")
    left, top = (draw.uniform(0, 1 - WITHIN) * side for side in grey.size)
    box = (left, top, left + WITHIN * grey.width, top + WITHIN * grey.height)
    light = np.asarray(grey.resize((across, down), box=box), np.float32)
    light = (light - light.mean()) / (light.std() + 8) * draw.uniform(8, 30)
    colour = np.array([channel + draw.gauss(0, 6) for channel in shade], np.float32)
    strength = np.where(colour > 200, 0.5, 1.0) * (0.7 if colour.mean() < 70 else 1.0)
    piece = np.clip(colour + light[:, :, None] * strength, 0, 255).astype(np.uint8)
    ground = PIL.Image.new("RGB", (width, height), draw.choice(GROUNDS))
    place = draw.randrange(width - across + 1), draw.randrange(height - down + 1)
    ground.paste(PIL.Image.fromarray(piece), place, _outline(across, down, draw))
    return ground


def _outline(width: int, height: int, draw: random.Random) -> PIL.Image.Image:
    """A mask: an ellipse, a rounded rectangle or a polygon; drawn twice as large for smooth edges."""
    mask = PIL.Image.new("L", (2 * width, 2 * height), 0)
    pen, box = ImageDraw.Draw(mask), (0, 0, 2 * width - 1, 2 * height - 1)
    kind = draw.randrange(3)
    if kind == 0:
        pen.ellipse(box, fill=255)
    elif kind == 1:
        pen.rounded_rectangle(box, draw.uniform(0, 0.5) * min(width, height), fill=255)
    else:
        corners = draw.randrange(5, 9)
        angles = [2 * math.pi * corner / corners for corner in range(corners)]
        reaches = [draw.uniform(0.6, 1) for _ in angles]
        pen.polygon(
            [
                (width * (1 + reach * math.cos(angle)), height * (1 + reach * math.sin(angle)))
                for angle, reach in zip(angles, reaches, strict=True)
            ],
            fill=255,
        )
    return mask.resize((width, height))
