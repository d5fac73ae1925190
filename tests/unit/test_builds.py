"""Which builds of FAISS are installed, and the stand-in that keeps mmsearch's requirement met."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mmsearch import builds
from mmsearch.builds import installed_builds, installer, stand_in, swap
from mmsearch.errors import ConfigError

ROOT = Path(__file__).parents[2]


def plant(site: Path, *distributions: str, module: str = "") -> Path:
    """A folder of packages with a module ``faiss`` and what pip leaves of these distributions."""
    (site / "faiss").mkdir(parents=True)
    (site / "faiss" / "__init__.py").write_text(module)
    for name in distributions:
        folder = site / f"{name}.dist-info"
        folder.mkdir()
        (folder / "RECORD").write_text(
            "" if name.endswith("+gpu") or "haystack" in name else "faiss/__init__.py,sha256=x,0\n"
        )
    return site


def with_site(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python where that folder comes first."""
    path = os.pathsep.join([str(site), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        cwd=site,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("distributions", "found"),
    [
        (["faiss_cpu-1.15.1"], {"faiss-cpu": "1.15.1"}),
        (["faiss_gpu-1.15.1", "faiss_cpu-1.15.1+gpu"], {"faiss-gpu": "1.15.1"}),
        (["faiss_gpu_cuvs-1.15.1", "faiss_cpu-1.15.1+gpu"], {"faiss-gpu-cuvs": "1.15.1"}),
        (["faiss_cpu-1.16.0", "faiss_gpu-1.15.1"], {"faiss-cpu": "1.16.0", "faiss-gpu": "1.15.1"}),
        (["faiss_cpu-1.15.1", "faiss_cuda-1.14.3"], {"faiss-cpu": "1.15.1", "faiss-cuda": "1.14.3"}),
        (["faiss_haystack-3.0.0", "faiss_cpu-1.15.1"], {"faiss-cpu": "1.15.1"}),
        ([], {}),  # made from source
    ],
)
def test_builds_that_have_files_are_seen_and_stand_ins_are_none(
    tmp_path: Path, distributions: list[str], found: dict[str, str]
) -> None:
    site = plant(tmp_path / "site", *distributions)
    ran = with_site(site, "-c", "from mmsearch.builds import *; print(installed_builds())")
    assert ran.stdout == f"{found}\n", ran.stderr


@pytest.mark.parametrize("arguments", [["search", "dog"], ["index", "."], ["status"], ["gpu", "status"]])
def test_two_builds_at_once_are_an_error_that_says_what_to_run(tmp_path: Path, arguments: list[str]) -> None:
    site = plant(
        tmp_path / "site", "faiss_cpu-1.15.1", "faiss_gpu-1.15.1", module="raise ImportError('swig')"
    )
    ran = with_site(site, "-m", "mmsearch", *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "faiss-cpu and faiss-gpu are installed at once" in ran.stderr
    assert "mmsearch gpu install" in ran.stderr
    assert "mmsearch gpu remove" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_a_faiss_that_cannot_be_loaded_is_an_error_that_says_what_to_run(tmp_path: Path) -> None:
    site = plant(tmp_path / "site", "faiss_gpu-1.15.1", module="raise RuntimeError('no libcudart.so.12')")
    ran = with_site(site, "-m", "mmsearch", "gpu", "status")
    assert ran.returncode == 2
    assert "no libcudart.so.12" in ran.stderr
    assert "mmsearch gpu install" in ran.stderr


def test_a_module_without_content_is_an_error_that_says_what_to_run(tmp_path: Path) -> None:
    """What is left where two builds were installed and one of them was taken away."""
    site = plant(tmp_path / "site", "faiss_gpu-1.15.1", module="")
    ran = with_site(site, "-m", "mmsearch", "gpu", "status")
    assert ran.returncode == 2
    assert "FAISS cannot be loaded" in ran.stderr
    assert "mmsearch gpu install" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_this_environment_has_one_build() -> None:
    assert len(installed_builds()) == 1


def test_the_stand_in_is_a_wheel_without_files_that_asks_for_the_gpu_build(tmp_path: Path) -> None:
    path = stand_in(tmp_path, "faiss-gpu-cuvs", "1.15.1")
    assert path.name == "faiss_cpu-1.15.1+gpu-py3-none-any.whl"
    with zipfile.ZipFile(path) as wheel:
        wheel.extractall(tmp_path / "site")
        names = wheel.namelist()
        rows = list(csv.reader(io.StringIO(wheel.read("faiss_cpu-1.15.1+gpu.dist-info/RECORD").decode())))
        assert {row[0] for row in rows} == set(names)
        for name, digest, length in rows:
            if not name.endswith("RECORD"):
                content = wheel.read(name)
                hashed = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                assert (digest, int(length)) == (f"sha256={hashed}", len(content))
    assert all(name.startswith("faiss_cpu-1.15.1+gpu.dist-info/") for name in names)
    (found,) = importlib.metadata.distributions(path=[str(tmp_path / "site")])
    assert (found.name, found.version) == ("faiss-cpu", "1.15.1+gpu")
    assert found.requires == ["faiss-gpu-cuvs==1.15.1"]


def test_pip_is_used_where_it_is_and_uv_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert installer("faiss-gpu") == [sys.executable, "-m", "pip"]
    steps = swap([sys.executable, "-m", "pip"], "faiss-gpu")
    assert steps["clear"] == [sys.executable, "-m", "pip", "uninstall", "--yes", *builds.installed()]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installer("faiss-gpu") == [str(uv), "pip"]
    for command in swap([str(uv), "pip"], "faiss-gpu").values():
        assert command[3:5] == ["--python", sys.executable]
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="neither pip nor uv"):
        installer("faiss-gpu")


@pytest.mark.parametrize(
    ("version", "enough"), [("23.2.1", False), ("24.0", False), ("24.1", True), ("26.3", True)]
)
def test_cuvs_needs_a_pip_that_reads_its_requirements(
    monkeypatch: pytest.MonkeyPatch, version: str, enough: bool
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    if enough:
        assert installer("faiss-gpu-cuvs")
    else:
        with pytest.raises(ConfigError, match="install --upgrade pip"):
            installer("faiss-gpu-cuvs")
    assert installer("faiss-gpu")
