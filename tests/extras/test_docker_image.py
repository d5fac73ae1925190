"""The image of docker/Dockerfile, built step by step in a clean Debian root and used as its user would.

There is no engine in a test: ``tests/image.py`` executes the steps. It needs root, mmdebstrap and Debian's archive.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image import Image, build, missing

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    if lack := missing():
        pytest.skip(f"building the image {lack}")
    work = tmp_path_factory.mktemp("image")
    for folder in (work, *work.parents):  # the image's user must be able to reach its root
        if folder.stat().st_mode & 0o055 != 0o055 and folder.is_relative_to(
            tmp_path_factory.getbasetemp().parent
        ):
            folder.chmod(folder.stat().st_mode | 0o055)
    yield build(ROOT / "docker" / "Dockerfile", ROOT, work)
    subprocess.run(["rm", "-rf", "--one-file-system", work], check=False)


@pytest.fixture(scope="module")
def media() -> dict[str, Path]:
    return {"/media": ROOT / "data"}


def test_the_image_indexes_and_finds_as_an_ordinary_user_without_a_network(
    image: Image, media: dict[str, Path]
) -> None:
    indexed = image.start("index", "/media", mounts=media)
    assert indexed.returncode == 0, indexed.stderr
    found = image.start("search", "a hedgehog", "--modality", "image", "-k", "1", "--json", mounts=media)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["path"] == "/media/photos/hedgehog.jpg"
    assert (image.root / "data" / "catalog.db").stat().st_uid == 10001
    assert image.user == "10001:10001"


def test_what_the_image_runs_by_itself_and_to_see_that_it_lives(image: Image) -> None:
    shown = image.start()
    assert (shown.returncode, "Usage: mmsearch" in shown.stdout) == (0, True)
    lives = image.run(*image.health, network=False)
    assert (lives.returncode, lives.stdout.split()[0]) == (0, "mmsearch")


def test_the_user_can_write_to_the_home_and_nowhere_else(image: Image) -> None:
    for path, allowed in (
        ("/data/x", True),
        ("/opt/mmsearch/x", False),
        ("/media/x", True),
        ("/usr/bin/x", False),
    ):
        assert (image.run("touch", path).returncode == 0) == allowed, path


def test_the_image_holds_the_models_and_no_leftovers_of_the_build(image: Image) -> None:
    (package,) = (image.root / "opt" / "mmsearch").glob("lib/python3*/site-packages/mmsearch")
    assert (package / "models" / "mini" / "model.json").is_file()
    for leftover in ("source", "wheels", "root/.cache"):
        assert not (image.root / leftover).exists(), leftover
    assert not list((image.root / "var/lib/apt/lists").glob("*_*"))
    assert not shutil.which("gcc", path=str(image.root / "usr" / "bin"))
