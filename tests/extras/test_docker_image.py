"""The image of docker/Dockerfile, built step by step in a clean Debian root and used as its user would.

There is no engine in a test: ``tests/image.py`` executes the steps. It needs root, mmdebstrap and Debian's archive.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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


def test_without_a_key_the_image_says_what_to_do_instead_of_serving_everybody(image: Image) -> None:
    (image.root / "data" / "keys.json").unlink(missing_ok=True)
    refused = image.start()
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no key in /data" in refused.stderr
    assert "docker compose run --rm mmsearch keys create" in " ".join(refused.stderr.split())
    assert "Usage: mmsearch" in image.start("--help").stdout


def test_the_image_serves_with_a_key_says_whether_it_is_well_and_drains_when_stopped(
    image: Image, media: dict[str, Path], tmp_path: Path
) -> None:
    assert image.start("index", "/media/photos", mounts=media).returncode == 0
    made = image.start("keys", "create", "me", "--scope", "admin")
    assert made.returncode == 0, made.stderr
    assert image.run(*image.health, network=False).returncode != 0, "nothing listens there"
    with image.started(mounts=media) as container, ThreadPoolExecutor(1) as pool:
        until = time.monotonic() + 60
        while container.execute(*image.health).returncode != 0:
            assert container.process.poll() is None, container.process.communicate()
            assert time.monotonic() < until
            time.sleep(0.1)
        status = Path(f"/proc/{container.pid}/status").read_text()
        assert re.findall(r"^[UG]id:\t(.*)$", status, re.M) == ["\t".join(["10001"] * 4)] * 2

        def curl(path: str, *options: str, key: str = made.stdout.strip()) -> Any:
            asked = ["curl", "-s", f"http://127.0.0.1:8080/v1/{path}", "-H", f"Authorization: Bearer {key}"]
            return json.loads(container.near(*asked, *options).stdout)

        assert curl("collections", key="mms_0_0")["status"] == 401
        photo = ROOT / "data" / "photos" / "hedgehog.jpg"
        (found,) = curl("collections/default/search/files", "-F", f"files=@{photo}", "-F", 'query={"k": 1}')[
            "hits"
        ]
        assert found["item"]["key"] == "/media/photos/hedgehog.jpg"
        thumbnail = found["part"]["thumbnail"].removeprefix("v1/")
        asked = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{content_type}"]
        asked += ["-H", f"X-API-Key: {made.stdout.strip()}", f"http://127.0.0.1:8080/v1/{thumbnail}"]
        assert container.near(*asked).stdout == "200 image/webp"

        items = [
            {"key": f"k{n}", "title": f"thing {n}", "description": "some words. " * 300} for n in range(200)
        ]
        (tmp_path / "items.json").write_text(json.dumps({"items": items}))
        sent = ["-H", "content-type: application/json", "-d", f"@{tmp_path / 'items.json'}"]
        written = pool.submit(curl, "collections/default/items", *sent)
        working = ["curl", "-s", "-H", f"X-API-Key: {made.stdout.strip()}", "http://127.0.0.1:8080/metrics"]
        while not re.search(r'work\{pool="write"\} [1-9]', container.near(*working).stdout):
            assert not written.done()
        code, printed = container.stop()
        assert written.result()["added"] == 200
        assert code == 0, printed
    shown = image.start("search", "thing", "--modality", "text", "-k", "1", "--json")
    assert json.loads(shown.stdout)["key"].startswith("k")


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
