"""How many pixels are decoded at once."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mmsearch.decoding import Room
from mmsearch.errors import MediaError
from mmsearch.media import pixels_of, read_image

ROOT = Path(__file__).parents[2]

MANY_BOMBS = """
import resource, sys
from pathlib import Path
from indexer.product import Product
from indexer.products import upsert
from mmsearch.memory import set_up_allocator
from mmsearch.engine import Engine
from tests.abused import png_bomb
from tests.colour_model import save_colour_model

set_up_allocator()
folder = Path(sys.argv[1])
for number in range(6):
    (folder / f"{number}.png").write_bytes(png_bomb(7000, 7001 + number))
with Engine.open(folder / "home", model=save_colour_model(folder / "model")) as engine:
    products = [Product(key=str(n), title="thing", images=[str(folder / f"{n}.png")]) for n in range(6)]
    report = upsert(engine, products, workers=6)
assert (report.added, report.notes) == (6, []), report
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_pictures_are_let_in_in_their_order_and_never_more_than_there_is_room_for() -> None:
    room = Room(100)
    sizes = [int(size) for size in np.random.default_rng(3).integers(1, 100, 300)]
    lock, taken, most, entered = threading.Lock(), 0, 0, 0

    def decode(some: list[int]) -> None:
        nonlocal taken, most, entered
        for size in some:
            with room(size):
                with lock:
                    taken += size
                    entered += 1
                    most = max(most, taken)
                time.sleep(0.0005)
                with lock:
                    taken -= size

    threads = [threading.Thread(target=decode, args=(sizes[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert entered == 300
    assert 50 < most <= 100


def test_a_picture_larger_than_all_the_room_goes_alone_and_is_not_overtaken() -> None:
    room = Room(100)
    order: list[str] = []

    def decode(name: str, size: int) -> None:
        with room(size):
            order.append(name)

    with room(60):
        large = threading.Thread(target=decode, args=("large", 500))
        large.start()
        while not room._turn.locked():
            time.sleep(0.001)
        small = threading.Thread(target=decode, args=("small", 1))
        small.start()
        time.sleep(0.05)
        assert order == []
    large.join(10)
    small.join(10)
    assert order == ["large", "small"]


def test_what_fails_inside_gives_its_room_back() -> None:
    room = Room(10)
    for _ in range(3):
        try:
            with room(10):
                raise ValueError
        except ValueError:
            pass
    with room(10):
        pass


@pytest.mark.parametrize(
    ("format", "options", "pixels"),
    [
        ("PNG", {}, 4000 * 3000),
        ("JPEG", {}, 500 * 375),
        ("JPEG", {"progressive": True}, 4000 * 3000),
    ],
)
def test_what_counts_is_what_is_decoded(format: str, options: dict[str, bool], pixels: int) -> None:
    file = io.BytesIO()
    PIL.Image.new("RGB", (4000, 3000)).save(file, format, **options)
    assert pixels_of(file.getvalue(), "a", 224) == pixels
    assert pixels_of(file.getvalue(), "a") == 4000 * 3000
    if not options:
        assert np.prod(read_image(file.getvalue(), "a", 224)[0].size) == pixels
    with pytest.raises(MediaError, match="bomb"):
        pixels_of(file.getvalue(), "a", 224, 1_000_000)


def test_many_large_pictures_at_once_do_not_fill_the_memory(tmp_path: Path) -> None:
    """Six of 49 megapixels take 1.2 GB together, more while they are converted, and as much again where the C library
    keeps for each thread what that one freed.
    """
    ran = subprocess.run(
        [sys.executable, "-c", MANY_BOMBS, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 800
