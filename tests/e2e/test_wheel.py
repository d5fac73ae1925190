"""The wheel holds all that a stranger's install needs, and nothing of the workshop."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("mmsearch-*.whl")))


def test_wheel_has_every_source_file_and_both_packages_typed(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    sources = {
        str(path.relative_to(ROOT))
        for package in ("mmsearch", "indexer")
        for path in (ROOT / package).rglob("*.py")
    }
    assert sources <= names
    assert {"mmsearch/py.typed", "indexer/py.typed"} <= names


@pytest.mark.parametrize("name", ["mini", "mini-multilingual"])
def test_wheel_has_the_built_in_models_with_their_cards(wheel: zipfile.ZipFile, name: str) -> None:
    folder = ROOT / "mmsearch" / "models" / name
    for file in folder.iterdir():
        assert wheel.read(f"mmsearch/models/{name}/{file.name}") == file.read_bytes()
    assert f"mmsearch/models/{name}/MODEL_CARD.md" in wheel.namelist()


def test_wheel_brings_licence_notice_and_the_command(wheel: zipfile.ZipFile) -> None:
    information = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")).rpartition(
        "/"
    )[0]
    assert {f"{information}/licenses/LICENSE", f"{information}/licenses/NOTICE"} <= set(wheel.namelist())
    assert "License-Expression: Apache-2.0" in wheel.read(f"{information}/METADATA").decode()
    assert "mmsearch = mmsearch.cli:main" in wheel.read(f"{information}/entry_points.txt").decode()


def test_wheel_leaves_tests_samples_and_benchmarks_out(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mmsearch", "indexer"}
    inside = [name for name in wheel.namelist() if not name.startswith("mmsearch/training/general/")]
    assert not [name for name in inside if name.endswith((".pyc", ".jpg"))]


def test_wheel_has_the_general_set_with_its_licences(wheel: zipfile.ZipFile) -> None:
    folder = "mmsearch/training/general"
    licences = wheel.read(f"{folder}/LICENSES.md").decode()
    media = [name for name in wheel.namelist() if name.startswith(folder) and name.endswith((".jpg", ".ogg"))]
    assert len(media) == sum(len(list((ROOT / "data" / kind).iterdir())) for kind in ("photos", "sounds"))
    assert all(f"| {Path(name).name} |" in licences for name in media)
    assert f"{folder}/captions.csv" in wheel.namelist()
